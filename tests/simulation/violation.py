"""An invariant that does not hold."""


class ViolationError(AssertionError):
    """``kind`` names the invariant, the text says what was seen."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


def violated(kind: str, text: str) -> None:
    raise ViolationError(kind, text)
