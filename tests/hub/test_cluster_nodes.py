"""Which node of a Redis Cluster has a slot."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.redis_cluster_errors import refused_by_cluster
from twisted_beastws.hub.redis_cluster_nodes import ClusterNodes, Shard, shards_of
from twisted_beastws.hub.redis_url import RedisURL

from .stubs import outcome

URL = RedisURL.parse("redis+cluster://me:secret@one,two:7000?min_replicas=1")
ANSWER = [
    [0, 8191, [b"10.0.0.1", 7001, b"id", []], [b"10.0.0.2", 7002, b"id", []]],
    [8192, 16383, [b"10.0.0.3", 7003, b"id", []]],
]


class Asked:
    """Nodes that answer when a test says so."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, int]] = []
        self.answers: list[Deferred[Any]] = []

    def __call__(self, url: RedisURL) -> Deferred[Any]:
        assert (url.username, url.password, url.min_replicas) == ("me", "secret", 1)
        self.nodes.append((url.host, url.port))
        self.answers.append(Deferred())
        return self.answers[-1]


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def nodes() -> ClusterNodes:
    return ClusterNodes(URL)


class TestFinding:
    """Finding the node of a slot."""

    def test_the_primary_of_a_slot_is_found_at_the_first_node(self, nodes: ClusterNodes, asked: Asked) -> None:
        found = [nodes.primary_of(slot, asked) for slot in (0, 8191, 8192)]
        assert asked.nodes == [("one", 6379)]
        asked.answers[0].callback(ANSWER)
        urls = [outcome(each) for each in found]
        assert [(url.host, url.port) for url in urls] == [("10.0.0.1", 7001)] * 2 + [("10.0.0.3", 7003)]
        assert all(url.cluster and not url.nodes and url.password == "secret" for url in urls)

    def test_each_question_begins_with_the_next_known_node(self, nodes: ClusterNodes, asked: Asked) -> None:
        for _ in range(5):
            nodes.primary_of(0, asked)
            asked.answers[-1].callback(ANSWER)
        assert asked.nodes == [("one", 6379), ("two", 7000), ("10.0.0.1", 7001), ("10.0.0.2", 7002), ("10.0.0.3", 7003)]

    def test_a_node_that_does_not_answer_is_skipped(self, nodes: ClusterNodes, asked: Asked) -> None:
        found = nodes.primary_of(0, asked)
        asked.answers[0].errback(LinkLost("it did not answer for 5 seconds"))
        asked.answers[1].callback(ANSWER)
        assert outcome(found).port == 7001

    def test_the_last_failure_is_reported_if_no_node_answers(self, nodes: ClusterNodes, asked: Asked) -> None:
        found = [nodes.primary_of(0, asked), nodes.primary_of(1, asked)]
        asked.answers[0].errback(refused_by_cluster("WRONGPASS invalid"))
        asked.answers[1].errback(LinkLost("it did not answer for 5 seconds"))
        for each in found:
            error = outcome(each)
            assert isinstance(error, LinkLost)
            assert str(error) == (
                "no node of the Redis Cluster answers; the last is two:7000: it did not answer for 5 seconds"
            )

    def test_a_refusal_is_reported_unchanged(self, nodes: ClusterNodes, asked: Asked) -> None:
        found = nodes.primary_of(0, asked)
        asked.answers[0].errback(LinkLost("it did not answer for 5 seconds"))
        asked.answers[1].errback(refused_by_cluster("ERR This instance has cluster support disabled"))
        error = outcome(found)
        assert isinstance(error, Refused) and "no node of a Redis Cluster" in error.trouble.logged

    @pytest.mark.parametrize("answer", [[], ANSWER[:1]])
    def test_a_slot_without_a_node_is_reported(self, nodes: ClusterNodes, asked: Asked, answer: Any) -> None:
        found = nodes.primary_of(16383, asked)
        asked.answers[0].callback(answer)
        error = outcome(found)
        assert isinstance(error, Refused)
        assert error.trouble.logged.startswith("some slots of the Redis Cluster have no node")

    def test_an_answer_of_another_kind_is_a_failure(self, nodes: ClusterNodes, asked: Asked) -> None:
        found = nodes.primary_of(0, asked)
        asked.answers[0].callback([[1]])
        asked.answers[1].callback("OK")
        assert isinstance(outcome(found), LinkLost)

    def test_the_question_ends_when_all_its_callers_cancel(self, nodes: ClusterNodes, asked: Asked) -> None:
        one, two = nodes.primary_of(0, asked), nodes.primary_of(1, asked)
        one.cancel()
        assert isinstance(outcome(one), CancelledError) and not asked.answers[0].called
        two.cancel()
        assert isinstance(outcome(two), CancelledError) and asked.answers[0].called
        assert asked.nodes == [("one", 6379)]
        again = nodes.primary_of(0, asked)
        asked.answers[-1].callback(ANSWER)
        assert outcome(again).port == 7001


class TestAnswers:
    """The nodes that an answer names."""

    def test_a_node_without_an_address_is_the_one_that_answered(self) -> None:
        for name in (b"", None):
            assert shards_of([[0, 1, [name, 7001, b"id"]]], "h") == [Shard(0, 1, [("h", 7001)])]

    def test_a_node_whose_address_is_not_known_is_left_out(self) -> None:
        assert shards_of([[0, 1, [b"?", 7001, b"id", []]]], "h") == []
        answer = [[0, 1, [b"?", 7001, b"id", []], [b"10.0.0.2", 7002, b"id", []]]]
        assert shards_of(answer, "h") == []
