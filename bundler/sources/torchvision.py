"""torchvision's models, by the names of their constructors: all that those would download."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.catalogues import catalogue, nearest
from bundler.checkpoint import checkpoint
from bundler.errors import RequestError
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import Web


class Torchvision:
    """Specs `torchvision:model` and `torchvision:model@WEIGHTS`.

    Without weights named: those of `pretrained=True` and of `weights="DEFAULT"`, and the backbone
    that the constructor loads when it is given no weights of its own. A quantized model's
    constructor takes those of the plain one too, unless it is told `quantize=True`.
    """

    scheme = "torchvision"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        name, at, weights = rest.partition("@")
        models = catalogue("torchvision")["models"]
        if name not in models:
            raise RequestError(f"torchvision has no weights for {name}: {nearest(name, models)}")
        model = models[name]
        named: dict[str, str] = model["weights"]
        if not at:
            urls = [*model.get("pretrained", ()), named[model["default"]]]
            plain = models.get(name.removeprefix("quantized_"), model)
            urls.append(plain["weights"][plain["default"]])
            if "backbone" in model:
                urls.append(model["backbone"])
        elif weights in named:
            urls = [named[weights]]
        elif weights == "DEFAULT":
            urls = [named[model["default"]]]
        else:
            raise RequestError(
                f"torchvision has no weights {weights} for {name}, only DEFAULT, {', '.join(named)}"
            )
        for url in dict.fromkeys(urls):
            yield checkpoint(url, web, specs=(f"{self.scheme}:{rest}",))
