"""Load models with timm and torchvision, and print the digests of their weights as JSON.

The arguments are names of cases; without any, all are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kinds import answer, vision_libraries
from models import weights_digest

timm, torchvision = vision_libraries()
models = torchvision.models
detection = models.detection


def digest(load: Callable[..., Any], *arguments: object, **options: object) -> Callable[[], str]:
    """A case: the weights of what a library loads."""
    return lambda: weights_digest(load(*arguments, **options))


def backbone(load: Callable[..., Any], **options: object) -> Callable[[], str]:
    """The same, only what a detector has from another model."""
    return lambda: weights_digest(load(**options).backbone.body)


if __name__ == "__main__":
    answer(
        {
            "an architecture": digest(timm.create_model, "hrnet_w18", pretrained=True),
            "an architecture with its tag": digest(
                timm.create_model, "hrnet_w18.ms_aug_in1k", pretrained=True
            ),
            "hf-hub": digest(
                timm.create_model, "hf-hub:timm/hrnet_w18.ms_aug_in1k", pretrained=True
            ),
            "local-dir": digest(
                timm.create_model,
                "local-dir:./checkpoints/hrnet_w18.ms_aug_in1k",
                pretrained=True,
            ),
            "another architecture": digest(timm.create_model, "test_vit", pretrained=True),
            "a revision": digest(
                timm.create_model, "hf-hub:timm/test_vit.r160_in1k@v2", pretrained=True
            ),
            "local-dir at a revision": digest(
                timm.create_model, "local-dir:./checkpoints/test_vit.r160_in1k@v2", pretrained=True
            ),
            "a backbone that another model needs": digest(
                timm.create_model, "test_resnet", pretrained=True
            ),
            "weights that are not on the Hub": digest(
                timm.create_model, "gcvit_xxtiny", pretrained=True
            ),
            "pretrained=True": digest(models.resnet50, pretrained=True),
            "IMAGENET1K_V1": digest(models.resnet50, weights="IMAGENET1K_V1"),
            "DEFAULT": digest(models.resnet50, weights="DEFAULT"),
            "get_model": digest(models.get_model, "resnet50", weights="DEFAULT"),
            "a detector": digest(detection.fasterrcnn_resnet50_fpn, weights="DEFAULT"),
            "a detector without weights": backbone(detection.fasterrcnn_resnet50_fpn),
        }
    )
