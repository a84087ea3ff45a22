"""Several searches over the same rows, side by side: each pass answers what all of them ask at that moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, final

from daskglm.partitions import Partitions

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Several:
    """The records of several questions, each added to its like."""

    records: tuple[Any, ...]

    def __add__(self, other: Several) -> Several:
        return Several(tuple(one + two for one, two in zip(self.records, other.records, strict=True)))


@final
@dataclass(frozen=True)
class Question:
    """function(item, *args) of the k-th response of a block, after it went through some functions; with buckets, function
    scatters rows to them, and fold sums each up.
    """

    k: int
    through: tuple[Callable[[Any], Any], ...]
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    buckets: int = 0
    fold: Callable[[Any], Any] | None = None

    def __call__(self, block: Any) -> Any:
        """The answer of one block."""
        item = block.of_response(self.k)
        for step in self.through:
            item = step(item)
        return self.function(item, *self.args)


def side_by_side(block: Any, questions: tuple[Question, ...]) -> Several:
    """The answers of one block."""
    return Several(tuple(question(block) for question in questions))


class _Given_up(BaseException):  # noqa: N801
    """Ends a search because another one failed, or the user interrupted."""


@final
class Together:
    """Runs searches in threads of their own, which wait for each other at every total; the totals themselves are taken by
    the thread that called `run`, so that an interrupt is heard there.

    What is asked in one pass depends on the searches alone, and every answer is the same as if it were asked alone.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: dict[int, tuple[Partitions[Any], Question]] = {}
        self._answers: dict[int, Any] = {}
        self._alive: set[int] = set()
        self._failed: BaseException | None = None

    def of(self, partitions: Partitions[Any], k: int) -> View:
        """The k-th response of the blocks of some partitions."""
        return View(self, partitions, k)

    def run(self, searches: Sequence[Callable[[], T]]) -> list[T]:
        """What the searches return; the first failure of any ends them all and is raised."""
        results: dict[int, T] = {}

        def search(k: int) -> None:
            try:
                results[k] = searches[k]()
            except _Given_up:
                pass
            except BaseException as error:
                with self._changed:
                    self._failed = self._failed or error
            finally:
                with self._changed:
                    self._alive.discard(k)
                    self._changed.notify_all()

        self._alive = set(range(len(searches)))
        threads = [threading.Thread(target=search, args=(k,), daemon=True) for k in range(len(searches))]
        for thread in threads:
            thread.start()
        try:
            self._serve()
        except BaseException as error:
            with self._changed:
                self._failed = self._failed or error
                self._changed.notify_all()
        for thread in threads:
            thread.join()
        if self._failed is not None:
            raise self._failed
        return [results[k] for k in range(len(searches))]

    def _serve(self) -> None:
        while True:
            with self._changed:
                while self._alive - self._asked.keys() and self._failed is None:
                    self._changed.wait()
                if not self._alive or self._failed is not None:
                    return
                asked, self._asked = self._asked, {}
            answers: dict[int, Any] = {}
            # in the order of the searches, not of the threads: a checkpoint is read back in the same order
            for partitions in {id(asked[k][0]): asked[k][0] for k in sorted(asked)}.values():
                here = {k: asked[k][1] for k in sorted(asked) if asked[k][0] is partitions}
                shared = {k: question for k, question in here.items() if question.fold is None}
                if shared:
                    found: Several = partitions.total(side_by_side, tuple(shared.values()))
                    answers |= dict(zip(shared, found.records, strict=True))
                # rows go to their buckets with the scores of one response at a time
                for k, question in here.items():
                    if question.fold is not None:
                        answers[k] = partitions.grouped(question, question.buckets, question.fold)
            with self._changed:
                self._answers |= answers
                self._changed.notify_all()

    def ask(self, partitions: Partitions[Any], question: Question) -> Any:
        """The answer, as soon as all other searches have asked, too."""
        k = question.k
        with self._changed:
            self._asked[k] = (partitions, question)
            self._changed.notify_all()
            while k not in self._answers:
                if self._failed is not None:
                    raise _Given_up
                self._changed.wait()
            return self._answers.pop(k)


@final
class View:
    """Partitions of one response, whose totals are taken together with those of the others."""

    def __init__(
        self,
        together: Together,
        partitions: Partitions[Any],
        k: int,
        through: tuple[Callable[[Any], Any], ...] = (),
        taken: list[int] | None = None,
    ) -> None:
        self._together, self._partitions, self._k, self._through = together, partitions, k, through
        self._taken = [0] if taken is None else taken

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""
        return self._partitions.n_leaves

    @property
    def rows(self) -> int | None:
        """Rows as the source counts them."""
        return self._partitions.rows

    @property
    def keep(self) -> str:
        """Where items live between passes."""
        return self._partitions.keep

    @property
    def passes(self) -> int:
        """Totals that this search took part in: those of the fit of this response alone."""
        return self._taken[0]

    @property
    def decodes(self) -> int:
        """How many times every leaf was read."""
        return self._partitions.decodes

    def enter(self, phase: str) -> None:
        """Names are given by whoever runs the searches."""

    def expect(self, record: int) -> None:
        """Sizes are announced by whoever runs the searches."""

    def observe(self, on_leaf: Callable[[int, int], None] | None) -> None:
        """Progress is told by whoever runs the searches."""

    def total(self, function: Callable[..., Any], *args: Any) -> Any:
        """The tree sum of function(item, *args)."""
        self._taken[0] += 1
        return self._together.ask(self._partitions, Question(self._k, self._through, function, args))

    def grouped(self, scatter: Callable[[Any], Any], buckets: int, fold: Callable[[Any], Any]) -> Any:
        """The tree sum over buckets, in a pass of its own."""
        self._taken[0] += 1
        question = Question(self._k, self._through, scatter, buckets=buckets, fold=fold)
        return self._together.ask(self._partitions, question)

    def consumed(self, function: Callable[[Any], Any]) -> View:
        """Items as the function makes them, each time anew: the others still need them as they are."""
        return View(self._together, self._partitions, self._k, (*self._through, function), self._taken)

    def kept_with_total(self, *functions: Any) -> Any:
        """Views are made of blocks, which are read already."""
        raise TypeError("a view keeps nothing")

    def map(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """Views are for totals."""
        raise TypeError("a view is for totals")

    def release(self) -> None:
        """What is kept belongs to whoever runs the searches."""
