"""Faults that can be planted in the core: small changes of its source, one at a time, each of which ought to be noticed.

Found in the syntax tree, made in the text, so that a fault's diff shows nothing else. Left alone is what cannot change
behaviour: docstrings, annotations, assertions, messages of errors and logs, ``__repr__``, decorators, options of classes.
"""

import ast
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

CORE = (
    "node/consensus",
    "node/replica",
    "node/ledger",
    "node/protocol",
    "node/membership.py",
    "node/node.py",
    "signaling/phases.py",
)
_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
}
_SIBLINGS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_MESSAGES = {"Notable", "Ban", "Drop", "Diverged"}
_FLAGS = {"strict", "maxsize"}
_SMALL = 64
"""Numbers up to this are changed by one; greater ones are limits, and are doubled and halved."""
_EXITS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


class Fault(Struct, frozen=True, order=True):
    """In ``path``, the bytes from ``start`` to ``end`` are replaced by ``text``. ``line``: where it begins, from 1; ``place``:
    the function it is in; ``defined``: the line of its ``def``, 0 outside of functions. ``before``, ``after``: its lines
    without and with it."""

    path: str
    start: int
    end: int
    text: bytes
    kind: str
    line: int
    place: str
    defined: int
    before: tuple[str, ...]
    after: tuple[str, ...]

    def planted(self, source: bytes) -> bytes:
        """The file with the fault."""
        return source[: self.start] + self.text + source[self.end :]


def sources(root: Path) -> Iterator[str]:
    """The core's files, relative to the project."""
    for part in CORE:
        found = sorted((root / part).glob("*.py")) if (root / part).is_dir() else [root / part]
        yield from (str(path.relative_to(root)) for path in found)


def faults(root: Path) -> list[Fault]:
    """All that can be planted, in order."""
    return [fault for path in sources(root) for fault in faults_in(path, (root / path).read_bytes())]


def faults_in(path: str, source: bytes) -> list[Fault]:
    """All that can be planted in one file."""
    return [fault for fault in changes_in(path, source) if is_python(fault, source)]


def changes_in(path: str, source: bytes) -> list[Fault]:
    """The same, and some that leave no Python."""
    planter = _Planter(path, source)
    planter.visit(ast.parse(source))
    return sorted(set(planter.found))


def is_python(fault: Fault, source: bytes) -> bool:
    """Whether the file can be read with the fault."""
    try:
        compile(fault.planted(source), fault.path, "exec")
    except SyntaxError:
        return False
    return True


def _stripped(code: bytes) -> tuple[str, ...]:
    return tuple(line.strip() for line in code.decode().splitlines())


class _Planter(ast.NodeVisitor):
    """Walks through a file. A node's place is in bytes, from the start of its line."""

    def __init__(self, path: str, source: bytes) -> None:
        self.found: list[Fault] = []
        self._path, self._source = path, source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._scopes: list[tuple[str, int, str]] = []
        """Name, line of the ``def`` (0: a class) and what is returned."""

    # -- where and what --------------------------------------------------------------------------------------------

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._lines[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def _code(self, node: ast.expr | ast.stmt) -> bytes:
        return self._source[self._start(node) : self._end(node)]

    def _plant(self, kind: str, start: int, end: int, text: bytes) -> None:
        place = ".".join(name for name, _, _ in self._scopes)
        defined = next((line for _, line, _ in reversed(self._scopes) if line), 0)
        line, source = self._source.count(b"\n", 0, start) + 1, self._source
        first, last = source.rfind(b"\n", 0, start) + 1, source.find(b"\n", end)
        before, after = _stripped(source[first:last]), _stripped(source[first:start] + text + source[end:last])
        self.found.append(Fault(self._path, start, end, text, kind, line, place, defined, before, after))

    def _replace(self, kind: str, node: ast.expr | ast.stmt, text: bytes) -> None:
        self._plant(kind, self._start(node), self._end(node), text)

    def _between(self, kind: str, left: ast.expr, right: ast.expr, operator: tuple[str, str]) -> None:
        start, end = self._end(left), self._start(right)
        text = self._source[start:end]
        self._plant(kind, start, end, text.replace(operator[0].encode(), operator[1].encode(), 1))

    # -- scopes, and what is left alone ----------------------------------------------------------------------------

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scopes.append((node.name, 0, ""))
        self._visit_all(node.body)
        self._scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name != "__repr__":
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            self._scopes.append((node.name, first, ast.unparse(node.returns) if node.returns else ""))
            self._visit_all([*node.args.defaults, *node.body])
            self._scopes.pop()

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            if isinstance(node.target, ast.Attribute):
                self._replace("statement dropped", node, b"pass")
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        return

    def visit_Raise(self, node: ast.Raise) -> None:
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return

    # -- statements ------------------------------------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if not node.orelse and isinstance(node.body[-1], _EXITS):
            self._replace("check removed", node.test, b"(" + self._code(node.test) + b") and False")
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self._replace("statement dropped", node, b"pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if "__slots__" in names:
            return
        if not names and not any(isinstance(target, ast.Tuple) for target in node.targets):
            self._replace("statement dropped", node, b"pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace("statement dropped", node, b"pass")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace("statement dropped", node, b"pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("statement dropped", node, b"pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("statement dropped", node, b"pass")

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is None:
            self._replace("statement dropped", node, b"pass")
            return
        for text in self._others(value):
            self._replace("return changed", value, text)
        self.generic_visit(node)

    def _others(self, value: ast.expr) -> tuple[bytes, ...]:
        """What a function could return instead, of the same type."""
        returns = self._scopes[-1][2]
        if isinstance(value, ast.Constant):
            return ()  # as any other constant
        if returns == "bool":
            return (b"True", b"False")
        if returns == "int":
            return (b"(" + self._code(value) + b") + 1",)
        if returns.startswith("list["):
            return (b"[]",)
        return (b"None",) if returns.endswith("| None") else ()

    # -- expressions -----------------------------------------------------------------------------------------------

    def _negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return  # it is planted there
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return  # nearly the same as another comparison
        self._replace("boolean negated", test, b"not (" + self._code(test) + b")")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace("boolean negated", node, b"bool(" + self._code(node.operand) + b")")
        elif isinstance(node.op, ast.USub):
            self._replace("constant changed", node, self._code(node.operand))
            return
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for (left, right), operator in zip(pairwise(operands), node.ops, strict=True):
            self._between("comparison changed", left, right, _COMPARISONS[type(operator)])
            if isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
                turned = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[_COMPARISONS[type(operator)][0]]
                self._between("comparison changed", left, right, (_COMPARISONS[type(operator)][0], turned))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        neutral = b"True" if isinstance(node.op, ast.And) else b"False"
        for operand in node.values:
            self._replace("check removed", operand, neutral)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _ARITHMETIC:
            self._between("operator changed", node.left, node.right, _ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace("constant changed", node, repr(not node.value).encode())
        elif isinstance(node.value, int):
            number = node.value
            others = (
                (number + 1, number - 1) if 1 < number <= _SMALL else (number + 1,) if number <= 1 else (number * 2, number // 2)
            )
            for other in others:
                self._replace("constant changed", node, str(other).encode())

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _MESSAGES or name in ("cast", "TypeVar"):
            return
        if name in _SIBLINGS:
            self._replace("operator changed", node.func, _SIBLINGS[name].encode())
        for left, right in pairwise(node.args if name not in _SIBLINGS else ()):
            if ast.dump(left) != ast.dump(right) and not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                between = self._source[self._end(left) : self._start(right)]
                swapped = self._code(right) + between + self._code(left)
                self._plant("arguments swapped", self._start(left), self._end(right), swapped)
        self.visit(node.func)
        self._visit_all(node.args)
        for keyword in node.keywords:
            if keyword.arg not in _FLAGS:
                self.visit(keyword.value)
