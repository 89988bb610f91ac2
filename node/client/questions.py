"""Questions to the members of a committee and their signed answers. Pure: bytes to publish out, replies in.

One member alone may lie. What it can prove (a block) may be believed; of the rest, what f+1 tell alike, as one of them is honest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.queries import EVERYONE, Account, Answer, NodeStatus, Query, Reply, Request
from node.protocol.topics import queries_topic, replies_topic


def read_reply(body: bytes, electorates: Mapping[Chain, Electorate]) -> Reply | None:
    """A message of a replies topic; None unless a member signed it. May run in any thread: a list of blocks has megabytes."""
    try:
        reply = decode(Reply, body, MAX_BROKER_BODY_BYTES)
    except DecodeError:
        return None
    electorate = electorates.get(reply.chain)
    return reply if electorate is not None and reply.is_valid(electorate) else None


class Question:
    """One request, to one member or to all.

    Attributes:
        topic, body: what to publish, and where.
        answers: by member, each member's first.
    """

    def __init__(self, electorate: Electorate, query: Query) -> None:
        everyone = range(len(electorate.keys))
        self.electorate = electorate
        self.query = query
        self.asked = frozenset(everyone) if query.member == EVERYONE else frozenset({query.member})
        self.topic = queries_topic(electorate.network, electorate.chain)
        self.body = encode(query)
        self.answers: dict[int, Answer] = {}

    @property
    def is_done(self) -> bool:
        """Whether all that were asked have answered."""
        return len(self.answers) == len(self.asked)

    @property
    def answer(self) -> Answer | None:
        """The first answer, if there is one."""
        return next(iter(self.answers.values()), None)

    def take(self, reply: Reply) -> bool:
        """Take in a checked reply; whether it answers this question and its member had not answered yet."""
        mine = reply.id == self.query.id and reply.chain == self.electorate.chain
        if not mine or reply.member not in self.asked or reply.member in self.answers:
            return False
        self.answers[reply.member] = reply.answer
        return True

    def agreed(self) -> Answer | None:
        """What f+1 members tell alike."""
        return agreed(self.answers.values(), self.electorate)

    def agreed_account(self, not_before: int = 0) -> Account | None:
        """The account as f+1 members tell it alike, at ``not_before`` or a later height."""
        recent = (a for a in self.answers.values() if isinstance(a, Account) and a.height >= not_before)
        found = agreed(recent, self.electorate)
        return found if isinstance(found, Account) else None

    def quorum_height(self) -> int | None:
        """The greatest height that a quorum says it has reached; None while too few have told where they stand."""
        heights = sorted((a.height for a in self.answers.values() if isinstance(a, NodeStatus)), reverse=True)
        quorum = self.electorate.quorum
        return heights[quorum - 1] if len(heights) >= quorum else None


class Questions:
    """The open questions of one client; ``client``: a name nobody can guess. ``topic``: where the replies come."""

    def __init__(self, network: bytes, client: str) -> None:
        self._client = client
        self._open: dict[bytes, Question] = {}
        self.topic = replies_topic(network, client)

    def ask(self, electorate: Electorate, request: Request, query_id: bytes, member: int = EVERYONE) -> Question:
        """A new question, to be published by the caller. ``query_id``: 16 random bytes."""
        question = Question(electorate, Query(query_id, self._client, member, request))
        self._open[query_id] = question
        return question

    def take(self, reply: Reply) -> Question | None:
        """Take in a checked reply; the question it is a new answer to."""
        question = self._open.get(reply.id)
        return question if question is not None and question.take(reply) else None

    def close(self, question: Question) -> None:
        """Answers to it are not wanted any more."""
        self._open.pop(question.query.id, None)


def agreed(answers: Iterable[Answer], electorate: Electorate) -> Answer | None:
    """The answer that more than f of these, one per member, are equal to; None when there is none."""
    for answer, count in Counter(answers).most_common(1):
        if count > electorate.faults_tolerated:
            return answer
    return None
