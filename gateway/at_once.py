"""What is costly and anybody may ask for: so much of it at the same time."""

from gateway.problems import Problem


class AtOnce:
    """Lets ``most`` in at a time. Entering it raises Problem (503) when there are as many."""

    def __init__(self, most: int, refusal: str) -> None:
        self._most, self._refusal = most, refusal
        self._inside = 0

    def __enter__(self) -> None:
        if self._inside >= self._most:
            raise Problem(503, "overloaded", self._refusal, retry_after=1)
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
