"""What liars do in a view of their committee: they propose, vote, certify, or do not."""

from collections.abc import Sequence
from functools import partial

from msgspec import structs

from node.consensus.simplex import Turn
from node.effects import Broadcast, Effect, Publish, Send, SendBlocks, SendBundles
from node.protocol.block import Block
from node.protocol.certificate import Certificate, VoteKind, sign_vote
from node.protocol.crypto import ZERO_HASH
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    BundleDelivery,
    BundleRequest,
    BundleWanted,
    Certified,
    ChainRequest,
    PeerMessage,
    Proposal,
    Standing,
    TransactionsReply,
)
from node.replica.proposing import build_block
from tests.simulation.adversary import Adversary, own_proposal, vote_in
from tests.simulation.nonsense import NONSENSE


def equivocate(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Two blocks in one view, each to one half of the committee."""
    proposal = own_proposal(liar, effect)
    if proposal is None or (block := liar.rival(proposal, [])) is None:
        return [effect]
    others = liar.others
    liar.chance.shuffle(others)
    half, rival = len(others) // 2, liar.proposing(proposal, block)
    return [Send(key, proposal if i < half else rival) for i, key in enumerate(others)]


def vote_twice(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes for all blocks of a view, to nullify it, and to finalize what it nullified."""
    vote = vote_in(effect)
    if vote is None:
        return [effect]
    rivals = {vote.block} | {m.vote.block for m in liar.heard if isinstance(m, Proposal) and m.vote.view == vote.view}
    found: list[Effect] = [effect, Broadcast(liar.vote(VoteKind.NULLIFY, vote.view, ZERO_HASH))]
    for block in sorted(rivals - {ZERO_HASH}):
        found += [Broadcast(liar.vote(kind, vote.view, block)) for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE)]
    return found


def vote_for_everything(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Signs whatever anybody votes for, whether valid, conflicting or late."""
    if not isinstance(effect, Broadcast):
        return [effect]
    statements = {(m.vote.view, m.vote.block) for m in liar.heard[-20:] if isinstance(m, Ballot | Proposal)}
    found: list[Effect] = [effect]
    for view, block in sorted(statements):
        kinds = (VoteKind.NULLIFY,) if block == ZERO_HASH else (VoteKind.NOTARIZE, VoteKind.FINALIZE)
        found += [Broadcast(liar.vote(kind, view, block)) for kind in kinds]
    return found


def flatter(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Tells each member, and it alone, that it votes for what that one voted for; and nobody anything else."""
    return [] if isinstance(effect, Broadcast) and isinstance(effect.message, Ballot) else [effect]


def agree_with(liar: Adversary, peer: bytes, message: PeerMessage) -> None:
    """The flattery. Once each: two flatterers would never come to an end."""
    if not isinstance(message, Ballot) or message.vote.block == ZERO_HASH or peer not in liar.electorate.keys:
        return
    view, block = message.vote.view, message.vote.block
    if (peer, view, block) not in liar.flattered:
        liar.flattered.add((peer, view, block))
        for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
            liar.node.send(peer, liar.vote(kind, view, block))


def keep_silent(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Says nothing, and is not dead."""
    return [] if isinstance(effect, Send | Broadcast | Publish | SendBlocks | SendBundles) else [effect]


def select(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Speaks to its friends only."""
    if isinstance(effect, Broadcast):
        return [Send(key, effect.message) for key in liar.others if key in liar.friends]
    return [] if isinstance(effect, Send) and effect.peer not in liar.friends else [effect]


def propose_nonsense(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Own proposals break a rule: each time another one. Where it can, their roots are those of executing them."""
    proposal = own_proposal(liar, effect)
    if proposal is None or liar.chance.random() < 0.3:
        return [effect]
    if liar.replica.parameters.block_difficulty_bits and liar.chance.random() < 0.5:
        return [Broadcast(liar.proposing(proposal, liar.unmined(liar.block_of(proposal))))]
    wrong = liar.chance.choice(NONSENSE)(liar, proposal)
    return [effect] if wrong is None else [Broadcast(liar.proposing(proposal, liar.mined(wrong)))]


def propose_out_of_turn(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes the block after the one it votes for, as early as can be and once the view has come: whoever leads, in its own
    name, or in the leader's."""
    vote = vote_in(effect)
    if vote is None or vote.kind is VoteKind.NULLIFY or liar.replica.consensus.leader_of(vote.view + 1) == vote.signer:
        return [effect]
    parent = liar.replica.branches.after(vote.block)
    if parent is None:
        return [effect]
    turn = Turn(vote.view + 1, vote.block, None, ())
    seat, rules, skip = liar.replica.seat, liar.replica.rules, liar.replica.consensus.tree.skip_after(vote.block)
    block = build_block(parent, turn, skip, seat, rules, parent.time + 1, ((), ()), ()).block
    leaders = structs.replace(block, header=structs.replace(block.header, proposer=liar.replica.consensus.leader_of(turn.view)))
    found: list[Effect] = [effect]
    for mined in map(liar.mined, (block, leaders)):
        vote = liar.vote(VoteKind.NOTARIZE, turn.view, mined.header.hash).vote
        found.append(Broadcast(Proposal(mined.compact(), vote, None, ())))
    return found


def sign_badly(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Its votes come with signatures that are none first."""
    vote = vote_in(effect)
    return [effect] if vote is None else [Broadcast(Ballot(structs.replace(vote, signature=liar.chance.randbytes(64)))), effect]


def flood(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Much of everything that a member may send, all of it useless, to one other at a time."""
    if not isinstance(effect, Broadcast) or liar.chance.random() < 0.6:
        return [effect]
    chance, replica, peer = liar.chance, liar.replica, liar.chance.choice(liar.others)
    view, height, size = replica.consensus.view, replica.state.height, len(liar.electorate.keys)
    junk = Block(replica.consensus.tree.root, (), tuple(chance.randbytes(4_000) for _ in range(8)))
    messages: list[PeerMessage] = [
        Certified(tuple(liar.signed_for_all(kind, view + i, chance.randbytes(32)) for i in (0, 1) for kind in VoteKind)),
        Standing(height + chance.randrange(100), view + chance.randrange(100)),
        ChainRequest(chance.randrange(1, height + 10)),
        BodyRequest(view, chance.randbytes(32)),
        BodyReply(junk),
        *(BundleRequest(shard, 1) for shard in replica.document.electorates),
        *(BundleWanted(shard, replica.shard, sequence) for shard in replica.document.electorates for sequence in (1, height)),
    ]
    for later in range(1, 60, 7):
        messages.append(liar.vote(chance.choice(list(VoteKind)), view + later, chance.randbytes(32)))
        turn = view + later + (replica.member - view - later) % size
        header = structs.replace(junk.header, view=turn, proposer=replica.member, payload_root=junk.payload_root())
        ahead = liar.mined(structs.replace(junk, header=header))
        messages.append(Proposal(ahead.compact(), liar.vote(VoteKind.NOTARIZE, turn, ahead.header.hash).vote, None, ()))
    return [effect, *(Send(peer, message) for message in messages)]


def swap_bodies(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """One header, two payloads: the wrong one first, to some; or first the one that executes, then the one in the header."""
    proposal = own_proposal(liar, effect)
    if proposal is None:
        return [effect]
    block = liar.block_of(proposal)
    other = Block(block.header, (), tuple(liar.chance.sample(liar.transactions, min(1, len(liar.transactions)))))
    if (other.bundles, other.transactions) == (block.bundles, block.transactions):
        return [effect]
    if liar.chance.random() < 0.5:
        swapped = structs.replace(proposal, block=other.compact())
        return [*(Send(key, swapped) for key in liar.others if key in liar.friends), effect]
    header = structs.replace(block.header, payload_root=other.payload_root())
    second = liar.proposing(proposal, liar.mined(structs.replace(other, header=header)))
    first = structs.replace(second, block=structs.replace(block, header=second.block.header).compact())
    return [Broadcast(first), Broadcast(second)]


def withhold_transactions(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes what only it has, and gives it to its friends alone."""
    if (proposal := own_proposal(liar, effect)) is not None:
        return [Broadcast(liar.with_hidden(proposal))]
    is_reply = isinstance(effect, Send) and isinstance(effect.message, TransactionsReply)
    return [] if is_reply and isinstance(effect, Send) and effect.peer not in liar.friends else [effect]


def give_other_transactions(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes what only it has, and gives others in its place: the same orders signed otherwise, final ones, junk, too few, too
    many, some of another place."""
    if (proposal := own_proposal(liar, effect)) is not None:
        return [Broadcast(liar.with_hidden(proposal))]
    if not isinstance(effect, Send) or not isinstance(effect.message, TransactionsReply):
        return [effect]
    asked = effect.message.transactions
    wrong: list[Sequence[bytes | None]] = [
        [liar.signed_again(encoded) for encoded in asked],
        [liar.signed_again(encoded) for encoded in asked],
        [liar.chance.choice(liar.transactions or asked) for _ in asked],
        [liar.chance.randbytes(len(encoded)) for encoded in asked],
        asked[1:],
        [*asked, asked[0]],
        [*asked[1:], asked[0]],
    ]
    sent = tuple(encoded for encoded in liar.chance.choice(wrong) if encoded is not None)
    return [structs.replace(effect, message=structs.replace(effect.message, transactions=sent))]


def never_propose(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes, and does not lead."""
    return [] if own_proposal(liar, effect) is not None else [effect]


def propose_late(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Proposes when the others are about to give up."""
    proposal = own_proposal(liar, effect)
    if proposal is None:
        return [effect]
    parameters = liar.replica.parameters
    delay = parameters.heartbeat + liar.chance.choice((-50, parameters.view_timeout // 4 - 50, parameters.view_timeout - 50))
    for key in liar.others:
        liar.node.later(max(0, delay), partial(liar.node.send, key, proposal))
    return []


def withhold_from_the_next(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """What it says in its own view does not reach the leader of the next one, nor do blocks: that one shall be late."""
    keys, me = liar.electorate.keys, liar.replica.member
    after = keys[(me + 1) % len(keys)]
    if isinstance(effect, Send) and isinstance(effect.message, BodyReply) and effect.peer == after:
        return []
    if not isinstance(effect, Broadcast) or not isinstance(effect.message, Ballot | Proposal):
        return [effect]
    is_of_own_view = effect.message.vote.view % len(keys) == me
    return [Send(key, effect.message) for key in liar.others if not is_of_own_view or key != after]


def nullify_everything(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes to nullify each view at once, and the next one: whoever nullifies an honest leader's view is joined."""
    vote = vote_in(effect)
    if vote is None:
        return [effect]
    return [Broadcast(liar.vote(VoteKind.NULLIFY, view, ZERO_HASH)) for view in (vote.view, vote.view + 1)]


def forge_certificates(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Certificates signed by too few, by itself for others, or for another statement; old ones and those of other shards."""
    vote = vote_in(effect)
    if vote is None or liar.chance.random() < 0.5:
        return [effect]
    electorate = liar.electorate
    signers = tuple(range(electorate.quorum))
    kind = liar.chance.choice(list(VoteKind))
    block = ZERO_HASH if kind is VoteKind.NULLIFY else liar.chance.randbytes(32) if liar.chance.random() < 0.5 else vote.block
    signature = liar.vote(kind, vote.view, block).vote.signature
    me = liar.replica.member
    forged = [
        Certificate(kind, vote.view, block, signers, (signature,) * len(signers)),
        Certificate(kind, vote.view, block, (me,) * len(signers), (signature,) * len(signers)),
        Certificate(kind, vote.view, block, (me,), (signature,)),
    ]
    heard = [c for m in liar.heard if isinstance(m, Certified) for c in m.certificates]
    forged += [structs.replace(c, view=vote.view) for c in heard[-1:]] + heard[:1]
    foreign = [m.bundle.finality.certificate for m in liar.heard if isinstance(m, BundleDelivery)]
    return [effect, Broadcast(Certified(tuple(forged + foreign[-2:])))]


def live_by_another_document(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Votes and proposals signed by other epoch documents, beside the right ones."""
    vote = vote_in(effect)
    if vote is None:
        return [effect]
    found: list[Effect] = [effect]
    for document in (ZERO_HASH, liar.chance.randbytes(32)):
        other = structs.replace(liar.electorate, document=document)
        found.append(Broadcast(Ballot(sign_vote(liar.node.key, vote.signer, other, vote.kind, vote.view, vote.block))))
    proposal = own_proposal(liar, effect)
    if proposal is not None:
        header = structs.replace(proposal.block.header, document=liar.chance.randbytes(32))
        found.append(Broadcast(liar.proposing(proposal, liar.mined(structs.replace(liar.block_of(proposal), header=header)))))
    return found


def repeat_old_messages(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """What others said before, to everybody, also in other committees."""
    if not isinstance(effect, Broadcast) or not liar.heard:
        return [effect]
    old = liar.chance.choice(liar.heard)
    return [effect, Broadcast(old), Send(liar.chance.choice(liar.strangers or liar.others), old)]
