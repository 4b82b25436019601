"""How a Redis or Valkey is reached: connections of our own, made the way the user's are.

Whatever the user gives (a URL, a blocking or asyncio client, one behind Sentinel, one of a cluster), only what says
*where* and *as whom* is taken from it. Timeouts, retries and protocol are ours: redis-py's own wait 4 to 40 s for a
server that is dead, and a pool of the user's would be shared with commands that block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from redis import Redis
from redis import connection as _connection
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redis.client import PubSub

    from gip_resilience._fleet_words import Question

PLACE: Final = frozenset(
    {
        "client_name",
        "credential_provider",
        "db",
        "host",
        "password",
        "path",
        "port",
        "socket_keepalive",
        "username",
    }
)
"""Settings of a connection that say where it goes and as whom; those that begin with ``ssl_`` do too."""

_URL: Final = ("redis://", "rediss://", "unix://")


class Wire(Protocol):
    """Connections to a store. Belongs to one thread."""

    def clients(self, questions: Sequence[Question]) -> Iterable[tuple[Redis, list[int]]]:
        """Who to ask, and which of the questions."""

    def subscriber(self) -> PubSub:
        """Something to listen with."""

    def everywhere(self) -> Iterable[Redis]:
        """One client for each server that has keys of its own."""

    def refresh(self) -> None:
        """The answer was that somebody else should be asked: learn who."""

    def close(self) -> None:
        """Close the connections."""


class Place(Protocol):
    """Where a store is. Thread-safe."""

    def open(self, patience: float) -> Wire:
        """New connections, that wait *patience* seconds for anything at most. Those of a cluster ask where it is."""

    def __str__(self) -> str:
        """Where it is, without a password."""


class _OneServer:
    """The wire to a server that has all keys."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def clients(self, questions: Sequence[Question]) -> Iterable[tuple[Redis, list[int]]]:
        return [(self._client, list(range(len(questions))))]

    def subscriber(self) -> PubSub:
        listener: PubSub = self._client.pubsub()
        return listener

    def everywhere(self) -> Iterable[Redis]:
        return [self._client]

    def refresh(self) -> None:
        """Nobody else is known."""

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()


class _Nodes:
    """The wire to a cluster. Each node is asked by itself, because pipelines across nodes refuse scripts."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster

    def clients(self, questions: Sequence[Question]) -> Iterable[tuple[Redis, list[int]]]:
        groups: dict[str, tuple[Redis, list[int]]] = {}
        for index, question in enumerate(questions):
            node = self._cluster.get_node_from_key(question.keys[0])
            if node.name not in groups:
                groups[node.name] = (self._cluster.get_redis_connection(node), [])
            groups[node.name][1].append(index)
        return groups.values()

    def subscriber(self) -> PubSub:
        # A publication goes to all nodes: it does not matter which one is listened to.
        node: ClusterNode = self._cluster.get_random_node()
        listener: PubSub = self._cluster.get_redis_connection(node).pubsub()
        return listener

    def everywhere(self) -> Iterable[Redis]:
        return [self._cluster.get_redis_connection(node) for node in self._cluster.get_primaries()]

    def refresh(self) -> None:
        self._cluster.nodes_manager.initialize()

    def close(self) -> None:
        self._cluster.close()
        self._cluster.disconnect_connection_pools()


def _tuned(settings: Mapping[str, Any], patience: float) -> dict[str, Any]:
    chosen = {name: settings[name] for name in settings if name in PLACE or name.startswith("ssl_")}
    return chosen | {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        # Pushes come over a subscription, which both protocols have; Redis 6.2's RESP3 differs.
        "protocol": 2,
    }


def _once() -> Retry:
    return Retry(NoBackoff(), 0)


class ServerPlace:
    """One server."""

    def __init__(self, settings: Mapping[str, Any], *, tls: bool) -> None:
        self._settings = dict(settings)
        self._tls = tls

    def __str__(self) -> str:
        if "path" in self._settings:
            return str(self._settings["path"])
        return f"{self._settings.get('host', 'localhost')}:{self._settings.get('port', 6379)}"

    def open(self, patience: float) -> Wire:
        """See `Place.open`."""
        settings = _tuned(self._settings, patience)
        if "path" in settings:
            return _OneServer(Redis(unix_socket_path=settings.pop("path"), retry=_once(), **settings))
        return _OneServer(Redis(ssl=self._tls, retry=_once(), **settings))


class SentinelPlace:
    """The server that Sentinels say is the master."""

    def __init__(self, pool: Any, sentinels: Iterable[Any], *, tls: bool) -> None:
        self._service: str = pool.service_name
        self._settings = dict(pool.connection_kwargs)
        self._tls = tls
        self._sentinels = [dict(client.connection_pool.connection_kwargs) for client in sentinels]
        self._sentinels_tls = [_is_tls(client.connection_pool.connection_class) for client in sentinels]

    def __str__(self) -> str:
        return f"{self._service} (Sentinel)"

    def open(self, patience: float) -> Wire:
        """See `Place.open`."""
        manager = Sentinel([])
        manager.sentinels = [
            Redis(ssl=tls, retry=_once(), **_tuned(settings, patience))
            for settings, tls in zip(self._sentinels, self._sentinels_tls, strict=True)
        ]
        settings = _tuned(self._settings, patience)
        return _BySentinel(
            manager, manager.master_for(self._service, ssl=self._tls, retry=_once(), **settings)
        )


class _BySentinel(_OneServer):
    def __init__(self, manager: Sentinel, client: Redis) -> None:
        super().__init__(client)
        self._manager = manager

    def close(self) -> None:
        super().close()
        for sentinel in self._manager.sentinels:
            sentinel.close()
            sentinel.connection_pool.disconnect()


class ClusterPlace:
    """A cluster, of which some nodes are known."""

    def __init__(
        self, nodes: Iterable[tuple[str, int]], settings: Mapping[str, Any], *, tls: bool, remap: Any = None
    ) -> None:
        self._nodes = list(nodes)
        self._settings = {
            name: settings[name] for name in settings if name not in {"host", "port", "db", "ssl"}
        }
        self._tls = tls
        self._remap = remap

    def __str__(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self._nodes) + " (cluster)"

    def open(self, patience: float) -> Wire:
        """See `Place.open`."""
        settings = _tuned(self._settings, patience)
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self._nodes],
            retry=_once(),
            require_full_coverage=False,
            address_remap=self._remap,
            ssl=self._tls,
            **settings,
        )
        return _Nodes(cluster)


def place_of(server: object, *, cluster: bool) -> Place:
    """Where that is.

    Args:
        server: a URL or a client of redis-py.
        cluster: whether the URL is of one node of a cluster.

    Raises:
        TypeError: it is neither.
        ValueError: the URL is none of Redis's.
    """
    if isinstance(server, str):
        if not server.startswith(_URL):
            # Not the URL itself: what is wrong with it may be where the password ends.
            raise ValueError("server: expected a URL that begins with redis://, rediss:// or unix://")
        try:
            settings = _connection.parse_url(server)
        except ValueError:
            # Its words quote what it stumbled over, which may be a part of the password.
            raise ValueError(
                "server: expected a URL like redis://user:password@host:6379/0, its parts percent-encoded"
            ) from None
        tls = server.startswith("rediss://")
        if not cluster:
            return ServerPlace(settings, tls=tls)
        if "path" in settings:
            raise ValueError("server: expected redis:// or rediss:// for a cluster, got unix://")
        return ClusterPlace(
            [(settings.get("host", "localhost"), settings.get("port", 6379))], settings, tls=tls
        )
    if isinstance(server, (RedisCluster, AsyncRedisCluster)):
        return _of_cluster(server)
    pool = getattr(server, "connection_pool", None)
    settings = getattr(pool, "connection_kwargs", None)
    if pool is None or not isinstance(settings, dict):
        raise TypeError(
            f"server: expected a URL or a client of redis-py (redis.Redis, redis.asyncio.Redis, RedisCluster),"
            f" got {type(server).__name__}"
        )
    tls = _is_tls(pool.connection_class)
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", None)
    if sentinels is not None:
        return SentinelPlace(pool, sentinels, tls=tls)
    if cluster:
        raise TypeError(
            f"cluster: expected a URL or a RedisCluster with cluster=True, got {type(server).__name__}"
        )
    return ServerPlace(settings, tls=tls)


def _of_cluster(client: RedisCluster | AsyncRedisCluster) -> Place:
    manager: Any = client.nodes_manager
    settings: dict[str, Any] = client.get_connection_kwargs()
    tls = bool(settings.get("ssl")) or _is_tls(settings.get("connection_class"))
    nodes = [(node.host, node.port) for node in manager.startup_nodes.values()]
    return ClusterPlace(nodes, settings, tls=tls, remap=getattr(manager, "address_remap", None))


def _is_tls(connection_class: object) -> bool:
    """By its name: the blocking and the asyncio client, and Sentinel, have one each."""
    return "SSL" in getattr(connection_class, "__name__", "")
