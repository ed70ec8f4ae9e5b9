"""Where a webhook may lead, so that it reaches nothing that only this machine can (server-side request forgery).

An address is checked when it is given, as far as it says itself where it leads; and the addresses that its name stands
for are checked each time, right before one of them is connected to: a name that means something else a moment later
gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from audio_storage_system.errors import InvalidInput
from audio_storage_system.locations import holds_secret

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_URL = 2_000
PORTS = {"http": 80, "https": 443}
# Where clouds tell a machine its secrets, as far as that is no link-local or private address. Never called.
METADATA = tuple(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254")))
# IPv4 in IPv6 beyond what `ipaddress` knows of: NAT64 (RFC 6052, RFC 8215).
NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class Refused(Exception):
    """The address may not be called."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to call. `host` is the name without brackets, `netloc` what stands in the address."""

    scheme: str
    host: str
    port: int
    netloc: str
    path: str


def parse(url: object, *, allow_private: bool) -> Target:
    """What an address says. Raises `InvalidInput` for one that is none, that holds a secret, that is not `https`
    though private addresses are not allowed, or that leads where it may not as it stands."""
    if not isinstance(url, str) or not 0 < len(url) <= LONGEST_URL or not re.fullmatch(r"[!-~]+", url):
        raise _invalid(f"it is text of at most {LONGEST_URL:,} characters of ASCII, without blanks")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        host.encode("idna")  # as TLS will: no part of it is empty or too long
    except ValueError as error:
        raise _invalid(str(error)) from error
    _check(url, parts, host, port, allow_private)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, PORTS[parts.scheme] if port is None else port, parts.netloc, path)


def _check(url: str, parts: SplitResult, host: str, port: int | None, allow_private: bool) -> None:
    if parts.scheme not in PORTS or not host or port == 0:
        raise _invalid("it is of the form https://host/path")
    if holds_secret(url) or parts.fragment:
        raise _invalid("it holds a user, a password, a key or a #fragment; calls are signed instead")
    if parts.scheme != "https" and not allow_private:
        raise _invalid("it has to be https; http is for the setting webhook_allow_private")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return  # a name: what it stands for is asked when it is called
    if not may_call(literal, allow_private=allow_private):
        raise _invalid("it leads to an address that is private, or of this machine or network")


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(reason=f"The address of the webhook cannot be used: {reason}")


def resolve(target: Target, *, allow_private: bool) -> list[IPAddress]:
    """The addresses of the target that may be called, of those that its name stands for now. Raises `Refused` where
    none may, `OSError` where there are none."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a part of it is empty or too long
        raise socket.gaierror("it is no name of a host") from error
    addresses = dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
    allowed = [address for address in addresses if may_call(address, allow_private=allow_private)]
    if not allowed:
        raise Refused("its name stands for an address that is private, or of this machine or network")
    return allowed


def may_call(address: IPAddress, *, allow_private: bool) -> bool:
    """Whether an address may be called: a public one; with `allow_private`, one of a private network or this machine
    too. Addresses of clouds' own services, of a link, of groups and of nobody never are. An IPv4 address in an IPv6 one
    has to be allowed itself."""
    return all(_is_allowed(form, allow_private) for form in _forms(address))


def _is_allowed(address: IPAddress, allow_private: bool) -> bool:
    if address in METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback:
        return allow_private
    local = not address.is_global or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    return not address.is_reserved and (allow_private or not local)


def _forms(address: IPAddress) -> Iterator[IPAddress]:
    """The address, or the IPv4 addresses that are written in it."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in NAT64):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    found = [one for one in inner if one is not None]
    yield from found or [address]
