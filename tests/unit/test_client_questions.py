"""What a client believes of members' answers."""

from node.client.questions import Question, Questions, read_reply
from node.protocol.block import Balance
from node.protocol.chain import Chain
from node.protocol.codec import decode
from node.protocol.crypto import ZERO_HASH
from node.protocol.queries import EVERYONE, Account, Answer, GetAccount, GetStatus, NodeStatus, Query, Request
from node.protocol.topics import queries_topic, replies_topic
from tests.chains import Network

NETWORK = Network()
ELECTORATES = NETWORK.document.electorates
CHAINS = {electorate.chain: electorate for electorate in ELECTORATES.values()}
STATUS = NodeStatus("node", 7, 9, ZERO_HASH, 0, 0, 0)


def ask(request: Request, member: int = EVERYONE, shard: int = 0) -> tuple[Questions, Question]:
    questions = Questions(NETWORK.genesis.network, "client")
    return questions, questions.ask(ELECTORATES[shard], request, bytes(15) + b"\x01", member)


def answer(questions: Questions, question: Question, member: int, said: Answer, shard: int = 0) -> bool:
    reply = read_reply(NETWORK.shards[shard].reply(question.query, member, said), CHAINS)
    assert reply is not None
    return questions.take(reply) is question


def status(height: int) -> NodeStatus:
    return NodeStatus("node", height, height, ZERO_HASH, 0, 0, 0)


def test_it_is_done_when_each_member_has_answered_and_each_counts_once_until_it_is_closed() -> None:
    questions, question = ask(GetStatus())
    network = NETWORK.genesis.network
    assert (question.topic, questions.topic) == (queries_topic(network, ELECTORATES[0].chain), replies_topic(network, "client"))
    assert decode(Query, question.body, 1000) == Query(bytes(15) + b"\x01", "client", EVERYONE, GetStatus())
    for member in range(4):
        assert not question.is_done
        assert answer(questions, question, member, STATUS)
        assert not answer(questions, question, member, status(8))
    assert question.is_done
    assert set(question.answers.values()) == {STATUS}
    questions, question = ask(GetStatus())
    questions.close(question)
    assert not answer(questions, question, 0, STATUS)


def test_only_who_was_asked_can_answer() -> None:
    questions, question = ask(GetStatus(), member=2)
    assert not answer(questions, question, 1, STATUS)
    assert not answer(questions, question, 2, STATUS, shard=1)
    assert question.answer is None
    assert answer(questions, question, 2, STATUS)
    assert question.is_done
    assert question.answer == STATUS


def test_a_reply_counts_only_with_its_members_signature() -> None:
    _, question = ask(GetStatus())
    genuine = NETWORK.shards[0].reply(question.query, 1, STATUS)
    assert read_reply(genuine, CHAINS) is not None
    assert read_reply(genuine[:-1] + bytes([genuine[-1] ^ 1]), CHAINS) is None
    assert read_reply(genuine, {chain: CHAINS[chain] for chain in (Chain(1, 1), Chain(2, 0)) if chain in CHAINS}) is None
    assert read_reply(b"junk", CHAINS) is None


def test_an_account_is_believed_when_more_than_f_tell_alike_and_late_enough() -> None:
    old, true, lie = (Account(h, (("USD", Balance(amount)),)) for h, amount in ((4, 1), (5, 2), (5, 999)))
    questions, question = ask(GetAccount(bytes(20)))
    answer(questions, question, 0, old)
    answer(questions, question, 1, old)
    answer(questions, question, 2, lie)
    assert question.agreed_account() == old
    assert question.agreed_account(not_before=5) is None
    questions, question = ask(GetAccount(bytes(20)))
    answer(questions, question, 0, lie)
    assert question.agreed_account() is None
    answer(questions, question, 1, true)
    assert question.agreed_account() is None
    answer(questions, question, 3, true)
    assert question.agreed_account(not_before=5) == true


def test_the_height_of_a_quorum_is_what_all_but_f_have_reached() -> None:
    questions, question = ask(GetStatus())
    for member, height in enumerate((5, 99, 6)):
        assert question.quorum_height() is None
        answer(questions, question, member, status(height))
    assert question.quorum_height() == 5
    answer(questions, question, 3, status(7))
    assert question.quorum_height() == 6
