"""Which addresses a page may be fetched from: public ones, on the ports of the web.

Pages of the open web name other pages, and a name may lead to this machine, to the network that
it is in, or to the service that hands out a cloud's credentials. So a host is resolved once, all
of its addresses are checked, and the connection is made to one that was checked: what the name
means a moment later no longer matters.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
import dataclasses
import ipaddress
import socket
from typing import Any

from mem1_jax.retrieval.endpoint import Failure, import_httpx

PORTS = {'http': 80, 'https': 443}
_MAX_URL_CHARS = 2000
# IPv6 addresses at whose end stands the IPv4 address that they lead to.
_EMBEDDING = tuple(map(ipaddress.ip_network, ('::ffff:0:0/96', '64:ff9b::/96')))
# Not public, though not every Python says so: special and documentary ranges, tunnels to IPv4,
# local NAT64, IPv4 as IPv6 in its old form, and a public one of a cloud's own services.
_CLOSED = tuple(map(ipaddress.ip_network, (
    '192.0.0.0/24', '192.88.99.0/24', '198.18.0.0/15', '100.64.0.0/10', '168.63.129.16/32',
    '::/96', '64:ff9b:1::/48', '100::/64', '2001::/23', '2001:db8::/32', '2002::/16',
    '3fff::/20', '5f00::/16', 'fec0::/10')))

Resolve = Callable[[str, int], Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Target:
  """Where a request goes.

  Attributes:
    url: as it was asked for, an `httpx.URL`.
    addresses: to connect to, the best first; all were checked.
  """

  url: Any
  addresses: tuple[str, ...]


def is_public(address: str) -> bool:
  """Whether an address is one of the world outside; an embedded IPv4 address has to be, too."""
  try:
    ip = ipaddress.ip_address(address)
  except ValueError:
    return False
  if any(ip in network for network in _EMBEDDING):
    ip = ipaddress.IPv4Address(int(ip) & 0xffffffff)
  if ip.version == 6 and ip.scope_id or any(ip in network for network in _CLOSED):
    return False
  return ip.is_global and not (ip.is_reserved or ip.is_multicast)


def resolve(host: str, port: int) -> list[str]:
  """The addresses of a host. Raises OSError or UnicodeError where there are none."""
  found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
  return list(dict.fromkeys(entry[4][0] for entry in found))


class Gate:
  """Says where requests may go.

  Args:
    resolver: host and port → addresses.
    is_allowed: of an address.
    ports: that may be asked, of either scheme.
    num_threads: look-ups of names at a time; one that hangs holds a thread for as long.
  """

  def __init__(self, resolver: Resolve = resolve, is_allowed: Callable[[str], bool] = is_public,
               ports: Iterable[int] = tuple(PORTS.values()), num_threads: int = 16):
    self._resolve, self._is_allowed, self._ports = resolver, is_allowed, frozenset(ports)
    self._pool = futures.ThreadPoolExecutor(num_threads, 'resolve')

  def close(self):
    self._pool.shutdown(wait=False, cancel_futures=True)

  def check(self, url: str, seconds: float) -> Target:
    """Where a URL leads.

    Raises:
      Failure: 'refused' where it must not be asked, for good; 'unresolved', 'timeouts'.
    """
    parsed = self._parse(url)
    host, port = parsed.raw_host.decode('ascii'), parsed.port or PORTS[parsed.scheme]
    pending = self._pool.submit(self._resolve, host, port)
    try:
      addresses = pending.result(seconds)
    except futures.TimeoutError as error:
      pending.cancel()
      raise Failure('timeouts', f'no address after {seconds:.3g} s') from error
    except (OSError, UnicodeError) as error:
      raise Failure('unresolved', f'its host has no address: {type(error).__name__}') from error
    if not addresses:
      raise Failure('unresolved', 'its host has no address')
    if not all(map(self._is_allowed, addresses)):  # one is enough: it may be the next one asked
      raise Failure('refused', 'its host is not of the public web', is_final=True)
    return Target(parsed, tuple(addresses))

  def _parse(self, url: str) -> Any:
    httpx = import_httpx()
    if len(url) > _MAX_URL_CHARS or not url.isprintable():
      raise Failure('refused', f'a URL of {len(url)} characters, of which at most {_MAX_URL_CHARS} '
                    'printable ones are taken', is_final=True)
    try:
      parsed = httpx.URL(url)
      port = parsed.port
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
      raise Failure('refused', 'no URL', is_final=True) from error
    if parsed.scheme not in PORTS or not parsed.raw_host:
      raise Failure('refused', 'no URL of http or https', is_final=True)
    if parsed.userinfo:
      raise Failure('refused', 'a URL with a user in it', is_final=True)
    if (port or PORTS[parsed.scheme]) not in self._ports:
      raise Failure('refused', f'port {port} is not of {sorted(self._ports)}', is_final=True)
    return parsed
