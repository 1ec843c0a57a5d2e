"""Pack models into one bundle, carry it over, and have them load on machines without a network.

    import bundler

    bundler.pack(["bert-base-uncased"], "bundle.tar.zst")      # with a network
    bundler.unpack("bundle.tar.zst")                           # without: then `source offline.env`

The command line does the same: `bundler --help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bundler.audit import InstalledVerification, verify_installed
    from bundler.checking import Check, check
    from bundler.comparison import Difference, difference
    from bundler.digest import Digest
    from bundler.environment import Roots, find_roots
    from bundler.errors import (
        BundlerError,
        DamagedError,
        Faults,
        FormatError,
        RequestError,
        TargetError,
        TrustError,
        UnavailableError,
    )
    from bundler.inspection import Inspection, inspect
    from bundler.inventory import Inventory, installed
    from bundler.keys import KeyPair, PrivateKey, PublicKey, write_key_pair
    from bundler.listing import Listing, read_listing
    from bundler.loading import Loaded, Trial, load_models
    from bundler.manifest import Manifest
    from bundler.packing import Packed, pack, plan_pack
    from bundler.planning import PackPlan
    from bundler.rehearsal import rehearse
    from bundler.removal import Removal, plan_remove, remove
    from bundler.request import Wanted, read_request
    from bundler.selection import Selection
    from bundler.sharing import LinkMode
    from bundler.shells import EnvFormat
    from bundler.stock import holdings
    from bundler.trust import Trust
    from bundler.unpacking import Unpacked, plan_unpack, unpack
    from bundler.upstream import Upstream
    from bundler.verification import Verification, verify, verify_and_mend

__version__ = "0.1.0"

_HOMES = {
    "BundlerError": "errors",
    "Check": "checking",
    "DamagedError": "errors",
    "Difference": "comparison",
    "Digest": "digest",
    "EnvFormat": "shells",
    "Faults": "errors",
    "FormatError": "errors",
    "Inspection": "inspection",
    "InstalledVerification": "audit",
    "Inventory": "inventory",
    "KeyPair": "keys",
    "LinkMode": "sharing",
    "Listing": "listing",
    "Loaded": "loading",
    "Manifest": "manifest",
    "PackPlan": "planning",
    "Packed": "packing",
    "PrivateKey": "keys",
    "PublicKey": "keys",
    "Removal": "removal",
    "RequestError": "errors",
    "Roots": "environment",
    "Selection": "selection",
    "TargetError": "errors",
    "Trial": "loading",
    "Trust": "trust",
    "TrustError": "errors",
    "UnavailableError": "errors",
    "Unpacked": "unpacking",
    "Upstream": "upstream",
    "Verification": "verification",
    "Wanted": "request",
    "check": "checking",
    "difference": "comparison",
    "find_roots": "environment",
    "holdings": "stock",
    "inspect": "inspection",
    "installed": "inventory",
    "load_models": "loading",
    "pack": "packing",
    "plan_pack": "packing",
    "plan_remove": "removal",
    "plan_unpack": "unpacking",
    "read_listing": "listing",
    "read_request": "request",
    "rehearse": "rehearsal",
    "remove": "removal",
    "unpack": "unpacking",
    "verify": "verification",
    "verify_and_mend": "verification",
    "verify_installed": "audit",
    "write_key_pair": "keys",
}

__all__ = [
    "BundlerError",
    "Check",
    "DamagedError",
    "Difference",
    "Digest",
    "EnvFormat",
    "Faults",
    "FormatError",
    "Inspection",
    "InstalledVerification",
    "Inventory",
    "KeyPair",
    "LinkMode",
    "Listing",
    "Loaded",
    "Manifest",
    "PackPlan",
    "Packed",
    "PrivateKey",
    "PublicKey",
    "Removal",
    "RequestError",
    "Roots",
    "Selection",
    "TargetError",
    "Trial",
    "Trust",
    "TrustError",
    "UnavailableError",
    "Unpacked",
    "Upstream",
    "Verification",
    "Wanted",
    "check",
    "difference",
    "find_roots",
    "holdings",
    "inspect",
    "installed",
    "load_models",
    "pack",
    "plan_pack",
    "plan_remove",
    "plan_unpack",
    "read_listing",
    "read_request",
    "rehearse",
    "remove",
    "unpack",
    "verify",
    "verify_and_mend",
    "verify_installed",
    "write_key_pair",
]


def __getattr__(name: str) -> Any:
    """Import on first use: unpacking on a target must not load what only packing needs."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"bundler.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
