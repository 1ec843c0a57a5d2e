"""What stands between this machine and the web: proxies, and the certificates they are known by."""

from __future__ import annotations

import os
import ssl
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from bundler.addresses import host_of
from bundler.errors import SetupError


def certificates() -> ssl.SSLContext | bool:
    """Whom to trust, if that is said here. Raises SetupError.

    SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's and httpx2's own; REQUESTS_CA_BUNDLE, a file or a
    folder, is what many have set up for requests.
    """
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        place = os.environ.get(name)
        if not place:
            continue
        try:
            if name == "SSL_CERT_DIR" or os.path.isdir(place):
                return ssl.create_default_context(capath=place)
            return ssl.create_default_context(cafile=place)
        except OSError as error:  # ssl.SSLError is one.
            raise SetupError(
                f"{name} names {place}, which holds no certificates ({error.strerror}): name a "
                "file in PEM format"
            ) from None
    return True


def check_proxies() -> None:
    """Raise SetupError if a proxy that is set up here is none. Passwords in it are not told."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for variable in (name, name.lower()):
            proxy = os.environ.get(variable, "")
            address = _with_scheme(proxy)
            try:
                parts = urlsplit(address)
                good = parts.hostname and parts.port != 0 and proxy.isprintable()
                httpx2.Proxy(address)
            except (ValueError, httpx2.InvalidURL):
                good = False
            if good and parts.scheme.startswith("socks") and find_spec("socksio") is None:
                raise SetupError(f"{variable} names a SOCKS proxy: pip install socksio for that")
            if proxy and not good:
                raise SetupError(
                    f"{variable} is no address of a proxy: write http://host:port, and a user and "
                    "password in it percent-encoded"
                )


def proxy_for(url: str) -> str:
    """The host and port of the proxy on the way to `url`; empty if there is none."""
    scheme, proxies = urlsplit(url).scheme, getproxies()
    proxy = proxies.get(scheme) or proxies.get("all", "")
    return "" if not proxy or proxy_bypass(host_of(url)) else host_of(_with_scheme(proxy))


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"
