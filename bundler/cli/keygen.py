"""`bundler keygen`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import bundler
from bundler.cli.options import Json
from bundler.cli.output import print_json
from bundler.cli.password import given_password
from bundler.wording import printable


class Curve(str, Enum):
    """The curves that Model Signing takes, by the bits of a key."""

    P256 = "256"
    P384 = "384"
    P521 = "521"


def keygen(
    key: Annotated[
        Path, typer.Argument(metavar="KEY.pem", help="The file for the private key.")
    ] = Path("bundler.pem"),
    curve: Annotated[
        Curve,
        typer.Option(help="Bits of the key, on NIST's curves.", envvar="BUNDLER_CURVE"),
    ] = Curve.P256,
    json_: Json = False,
) -> None:
    """Make a key to sign bundles with, and beside it the public one that checks them.

    KEY.pem is for pack --sign, KEY.pub.pem for unpack --verify-key. Nothing is overwritten. If
    BUNDLER_KEY_PASSWORD is set, the private key is encrypted with it.
    """
    pair = bundler.write_key_pair(key, int(curve.value), given_password())
    if json_:
        print_json(pair.to_json())
        return
    protected = "protected by its password" if given_password() else "not protected by a password"
    print(printable(f"{pair.private} is for pack --sign, {protected}: keep it to yourself"))
    print(printable(f"{pair.public} is for unpack --verify-key: bring it there by a safe way"))
    print(f"key {pair.hint}")
