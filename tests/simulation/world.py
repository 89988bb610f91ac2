"""One run: a whole network of real replicas, coordinator and clients, made from a plan and driven to its end."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING

from node.client.blocks import ProvenBlock, read_block
from node.effects import Mine, Tell
from node.events import Stored
from node.membership import Membership
from node.protocol.address import address_of
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Announcement, Application, EpochDocument, PhaseNotice, Registration, Roll, first_document
from node.protocol.genesis import Asset, Genesis, Parameters, Phase
from node.protocol.puzzle import search
from tests.simulation import adversaries, faults
from tests.simulation.captured import Captor
from tests.simulation.clients import ISSUERS, TERMS, Gateway, Shuttle, Swindler
from tests.simulation.coordinator import KEY, CoordinatorHost
from tests.simulation.host import START, Host
from tests.simulation.invariants import Monitor
from tests.simulation.loop import Loop
from tests.simulation.network import Broker, Network
from tests.simulation.plan import Links, Plan, Skew
from tests.simulation.questions import Inquirer
from tests.simulation.violation import violated

if TYPE_CHECKING:
    from tests.simulation.story import Story

PARAMETERS = {
    "block_difficulty_bits": 0,
    "puzzle_difficulty_bits": 4,
    "block_interval": 30,
    "heartbeat": 800,
    "view_timeout": 400,
    "block_transactions": 40,
    "validity_window": 20_000,
    "commit_timeout": 4_000,
    "clock_skew": 1_000,
    "checkpoint_interval": 6,
}
_UNSETTLED = 6_000
"""How long a run goes on in which nothing needs to come to an end, ms."""
_PROBE_PAUSE = 100
_MAX_FRAMES = 100_000
"""No run needs nearly as many."""


class World(Loop):
    """``story``: told everything that happens, if given. ``digest`` is over all that was sent and when."""

    def __init__(self, plan: Plan, story: "Story | None" = None) -> None:
        super().__init__()
        self.plan, self.story = plan, story
        self.genesis = Genesis(
            name="simulation",
            time=START,
            coordinator=KEY.public.hex(),
            assets=tuple(Asset(code, 2, key.public.hex(), *TERMS[code]) for code, key in ISSUERS.items()),
            parameters=Parameters(committees=plan.committees, committee_size=plan.size, **PARAMETERS | plan.parameters),
        )
        self._hash = sha256()
        self.frames = 0
        self.has_probed = False
        self._blocks: dict[bytes, ProvenBlock | None] = {}
        self.network, self.broker = Network(self), Broker(self)
        self.coordinator, self.monitor = CoordinatorHost(self), Monitor(self)
        self.greatest_skew = max((abs(f.offset) for f in plan.faults if isinstance(f, Skew)), default=0)
        self.nodes, self.document = self._make_nodes()
        self.by_key = {node.key.public: node for node in self.nodes}
        self.shards = self.document.shards.shards
        self.captured = self._captured()
        self.honest = [shard for shard in self.shards if shard != self.captured]
        self.monitor.begin()
        self.gateways = [Gateway(self, number) for number in range(plan.gateways)]
        self.swindler = Swindler(self) if plan.swindled else None
        self.shuttle = Shuttle(self) if "tallies" in plan.limits else None
        self.inquirer = Inquirer(self) if plan.asked else None
        for index, behaviours in plan.byzantine:
            self.nodes[index].adversary = adversaries.lying(self.nodes[index], behaviours)
        self.captor = Captor(self, self.captured, ISSUERS["USD"]) if self.captured is not None else None

    def _make_nodes(self) -> tuple[list[Host], EpochDocument]:
        """Nodes by seat: what the coordinator will make of their registrations is no secret."""
        chance, network, plan = Random(f"{self.plan.seed}/keys"), self.genesis.network, self.plan
        keys = [KeyPair(chance.randbytes(32)) for _ in range(plan.committees * plan.size)]
        entropy, registrations, secrets = {}, {}, {}
        for i, key in enumerate(keys):
            entropy[key.public] = chance.randbytes(32)
            registration, secret = self._register(i, key, entropy[key.public])
            registrations[key.public], secrets[key.public] = registration, secret
        roll = Roll(network, 1, 1, tuple(registrations[public_key] for public_key in sorted(registrations)))
        document = first_document(self.genesis, roll, secrets)
        nodes: dict[int, Host] = {}
        for key in keys:
            seat, registration = document.seat_of(key.public), registrations[key.public]
            assert seat is not None
            index = seat[0] * plan.size + seat[1]
            name = f"{'abcdefgh'[seat[0]]}{seat[1]}"
            nodes[index] = Host(self, index, name, registration.name, key, entropy[key.public], registration.addresses[0])
        return [nodes[index] for index in sorted(nodes)], document

    def _captured(self) -> int | None:
        """The shard whose whole committee lies."""
        issuing = {self.document.shards.shard_of(address_of(key.public)) for key in ISSUERS.values()}
        return next(shard for shard in self.shards if shard not in issuing) if self.plan.captured else None

    def _register(self, number: int, key: KeyPair, entropy: bytes) -> tuple[Registration, bytes]:
        """What a node will apply with in the first attempt, and its secret."""
        membership = Membership(self.genesis, key, f"node-{number}", (f"/ip4/10.0.0.{number + 1}/tcp/8100",), Stored(entropy))
        notice = PhaseNotice(self.genesis.network, 1, 1, Phase.REGISTRATION, 0, 0).signed(KEY)
        (puzzle,) = [e for e in membership.received(encode(Announcement(notice, None))) if isinstance(e, Mine)]
        nonce = search(puzzle.prefix, puzzle.bits, 0, 1 << 30)
        assert nonce is not None
        told = [effect.message for effect in membership.puzzle_solved(nonce) if isinstance(effect, Tell)]
        (registration,) = [message.registration for message in told if isinstance(message, Application)]
        assert membership.pledge is not None
        return registration, membership.pledge.secret

    # -- who and when ----------------------------------------------------------------------------------------------

    @property
    def wall(self) -> int:
        return START + self.time

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def committee(self, shard: int) -> list[Host]:
        return self.nodes[shard * self.plan.size : (shard + 1) * self.plan.size]

    def key_in(self, shard: int, chance: Random) -> KeyPair:
        """A fresh account in a shard."""
        while True:
            key = KeyPair(chance.randbytes(32))
            if self.document.shards.shard_of(address_of(key.public)) == shard:
                return key

    def proven_block(self, shard: int, encoded: bytes) -> ProvenBlock | None:
        """A block that proves itself, or None. All clients see the same bytes: they are checked once."""
        if encoded not in self._blocks:
            self._blocks[encoded] = read_block(encoded, self.document.electorates[shard])
        return self._blocks[encoded]

    # -- what is told ----------------------------------------------------------------------------------------------

    def tell(self, who: object, what: str, text: str = "", thing: object = None) -> None:
        """Something happened."""
        self._hash.update(f"{self.time} {who} {what} {text}\n".encode())
        if self.story is not None:
            self.story.happened(self.time, who, what, text, thing)

    def note_frame(self, source: Host, target: Host, frame: bytes) -> None:
        self.frames += 1
        if self.frames > _MAX_FRAMES:
            violated("storm", f"{self.frames} messages")
        self._hash.update(b"%d %d %d " % (self.time, source.index, target.index) + frame)

    # -- a run -----------------------------------------------------------------------------------------------------

    def run_plan(self) -> None:
        """Faults while the plan is active; then all faults stop, and everything must be decided in time.

        Raises:
            ViolationError: an invariant does not hold.
        """
        self.start()
        self.run(self.plan.active)
        self.heal()
        deadline = self.time + (self.plan.settle if self.plan.is_live else _UNSETTLED)
        if not self.run(deadline, lambda: self.has_probed and self.is_done()) and self.plan.is_live:
            violated("liveness", f"{self.plan.settle} ms after all faults stopped: {'; '.join(self.undone())}")
        self.end()

    def end(self) -> None:
        """Every node ends well; then all has to be in order. Raises ViolationError."""
        for node in self.nodes:
            node.end()
        self.monitor.check_end()

    def start(self) -> None:
        self.coordinator.start()
        for node in self.nodes:
            node.start()
        faults.schedule(self)
        self.after(self.plan.active // 10, self._submit)

    def _submit(self) -> None:
        for gateway in self.gateways:
            gateway.start()
        if self.swindler is not None:
            self.swindler.start()
        if self.shuttle is not None:
            self.shuttle.start()
        if self.inquirer is not None:
            self.inquirer.start()
        if self.captor is not None:
            self.captor.start()

    def heal(self) -> None:
        """Faults stop: everybody is up, on time and connected. Liars go on lying."""
        self.tell(None, "all faults stop")
        self.network.links = self.broker.links = Links()
        self.network.timing = ""
        self.network.cuts.clear()
        self.broker.is_up = True
        self.coordinator.start_if_down()
        down = [node for node in self.nodes if not node.is_up]
        for node in self.nodes:
            node.skew, node.latency, node.trap = 0, 1, ""
            node.wake_up()
            node.start()
        self.monitor.on_heal(down)
        for gateway in self.gateways:
            gateway.send_all_again()
        heights = {shard: len(self.monitor.chains[shard]) for shard in self.honest}
        self._once(lambda: all(len(self.monitor.chains[shard]) > height for shard, height in heights.items()), self._probe_within)

    def _once(self, is_so: Callable[[], bool], then: Callable[[], None]) -> None:
        if is_so():
            then()
        else:
            self.after(_PROBE_PAUSE, lambda: self._once(is_so, then))

    def _probe_within(self) -> None:
        """Once each shard has a further block: until then it may wait for what was sent while there were faults."""
        for gateway in self.gateways:
            gateway.probe(across=False)
        self._once(self.monitor.has_recovered, self._probe_across)

    def _probe_across(self) -> None:
        """Once views that began with faults are over: in those, members that gave up early wait for the others' timers, longer
        than there is time for the votes of another shard. Where liars lead some views, that may happen in any of them."""
        self.has_probed = True
        for gateway in self.gateways if not self.plan.byzantine else ():
            gateway.probe(across=True)

    def is_done(self) -> bool:
        has_shuttled = self.shuttle is None or self.shuttle.is_done
        return has_shuttled and not any(gateway.outbox for gateway in self.gateways) and self.monitor.is_settled()

    def undone(self) -> Sequence[str]:
        """What keeps a run from its end."""
        found = [] if self.has_probed else ["a shard has no further block, or none of a later view"]
        found += [f"{gateway} waits for {len(gateway.outbox)} transactions" for gateway in self.gateways if gateway.outbox]
        found += (
            ["a client has not done with sending to and fro"] if self.shuttle is not None and not self.shuttle.is_done else []
        )
        for shard, chain in self.monitor.oracle.chains_of(self.monitor.oracle.epoch).items():
            if chain.undecided:
                found.append(f"shard {shard} has {chain.undecided} undecided")
        for node in self.nodes:
            if node.is_honest and node.replica is not None:
                consensus = node.replica.consensus
                found.append(f"{node} at height {node.replica.state.height} view {consensus.view}")
        return found
