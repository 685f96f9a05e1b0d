"""Describe all classes: ask, judge, ask again, journal every answer, and write the pack at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock
from typing import Any, Protocol

from ost.descriptors.pack import Pack, PackClass, load_pack, save_pack
from ost.descriptors.write.answer import Judged, judge
from ost.descriptors.write.journal import Answer, Journal, differences
from ost.descriptors.write.question import PROMPT_VERSION, Message, Question
from ost.descriptors.write.server import RequestFailed, ServerFailed, Unanswered
from ost.errors import UsageError
from ost.types import TextContext

ANSWERS_TRIED = 4  # answers per class: the first, and three more after faults
PATIENCE = 3  # requests in a row that got no answer in all their tries; then the server counts as down
METHOD = "written by an LLM (ost describe)"
QUOTED = 2000  # characters of a faulty answer that are quoted back to the LLM


class Asker(Protocol):
    """The interface of a server, as a run needs it; `write.server.Server` implements it."""

    kind: str

    @property
    def model_name(self) -> str:
        """The model's name, without private folders."""
        ...

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Answer:
        """Return one answer to a conversation."""
        ...


@dataclass(frozen=True)
class DescribedClass:
    """The result of describing one class.

    Attributes:
        name: the class.
        item: the class with its descriptors; None if no answer passed.
        faults: those of the last answer, if none passed.
    """

    name: str
    item: PackClass | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A finished run.

    Attributes:
        pack: as written to the file; None if no class passed and nothing was written.
        failed: the classes whose answers did not pass.
        requests, tokens_in, tokens_out: answers received and tokens billed, including those of an interrupted
            run that was resumed.
    """

    pack: Pack | None
    failed: tuple[DescribedClass, ...]
    requests: int
    tokens_in: int
    tokens_out: int


@dataclass
class _Run:
    """The state that the threads of one run share."""

    question: Question
    server: Asker
    journal: Journal
    context: TextContext | None
    stop: Event = field(default_factory=Event)
    failure: ServerFailed | None = None
    unanswered: int = 0
    count_lock: Lock = field(default_factory=Lock)

    def describe(self, target: PackClass) -> DescribedClass:
        """Ask about one class until an answer passes, starting from the answers in the journal."""
        messages = self.question.messages(target.name)
        judged = Judged(None, ("it was not asked about",))
        journaled = self.journal.answers.get(target.name, [])[:ANSWERS_TRIED]
        for answer in journaled:
            judged = self._judge_answer(messages, answer, target)
        for _ in range(len(journaled), ANSWERS_TRIED):
            if judged.item or self.stop.is_set():
                break
            try:
                answer = self.server.ask(messages, self.question.schema())
            except RequestFailed as error:
                self._count_unanswered(error)
                return DescribedClass(target.name, None, (str(error),))
            except ServerFailed as error:
                self.failure = error
                self.stop.set()
                break
            self._count_unanswered(None)
            self.journal.add(target.name, answer)
            judged = self._judge_answer(messages, answer, target)
        return DescribedClass(target.name, judged.item, judged.faults)

    def _judge_answer(self, messages: list[Message], answer: Answer, target: PackClass) -> Judged:
        """Judge an answer; append a faulty one to the conversation, with its faults."""
        judged = judge(answer.text, target, count=self.question.count, context=self.context)
        if judged.item is None:
            messages.append({"role": "assistant", "content": answer.text[:QUOTED] or "{}"})
            messages.append(self.question.again(judged.faults))
        return judged

    def _count_unanswered(self, error: RequestFailed | None) -> None:
        with self.count_lock:
            self.unanswered = self.unanswered + 1 if isinstance(error, Unanswered) else 0
            if self.unanswered >= PATIENCE:
                self.failure = ServerFailed(str(error))
                self.stop.set()


def write_pack(
    requested: Pack,
    question: Question,
    server: Asker,
    output: Path,
    *,
    context: TextContext | None = None,
    at_once: int = 8,
    temperature: float | None = None,
    overwrite: bool = False,
    tell: Callable[[DescribedClass], None] = lambda _: None,
) -> Written:
    """Describe the classes of `requested` and write them to `output`.

    A journal beside `output` keeps every answer as it arrives. A killed run resumes where it stopped, and a
    run over more classes with the same settings asks only about the new ones.

    Args:
        wanted: names and labels; any descriptors are ignored.
        question: the request for every class.
        server: the server that answers.
        output: the pack file.
        context: that of the backbone that will read the prompts; see `class_faults`.
        at_once: number of requests in flight.
        temperature: the server's sampling temperature, recorded in the provenance.
        overwrite: ask about every class even if `output` exists.
        tell: called with each outcome as it arrives.

    Raises:
        UsageError: `output` was written by hand or with other settings, or another run is writing it.
        PackError: `output` or the journal cannot be read.
        ServerFailed: the server stopped answering; its earlier answers are in the journal.
    """
    settings = _settings(question, server, temperature)
    kept = {} if overwrite else _written_before(output, settings)
    journal = Journal(output.with_name(f"{output.name}.journal"), settings)
    try:
        shared = _Run(question, server, journal, context)
        classes = [PackClass(item.name, label=item.label) for item in requested.classes]
        outcomes = {
            item.name: DescribedClass(item.name, kept[item.name]) for item in classes if item.name in kept
        }
        for outcome in outcomes.values():
            tell(outcome)
        _ask_all(shared, [item for item in classes if item.name not in kept], at_once, outcomes, tell)
        if shared.failure:
            raise ServerFailed(
                f"{shared.failure}; {len(_described(outcomes))} of {len(requested)} classes are done and kept, "
                "run the same command again to go on"
            )
        pack = _write_described(requested, outcomes, settings, output)
    except BaseException:
        journal.close()
        raise
    journal.close(remove=True)
    answers = [answer for name in requested.names for answer in journal.answers.get(name, [])]
    return Written(
        pack,
        tuple(outcome for outcome in outcomes.values() if outcome.item is None),
        len(answers),
        sum(answer.tokens_in for answer in answers),
        sum(answer.tokens_out for answer in answers),
    )


def _ask_all(
    run: _Run,
    classes: Sequence[PackClass],
    at_once: int,
    outcomes: dict[str, DescribedClass],
    tell: Callable[[DescribedClass], None],
) -> None:
    pool = ThreadPoolExecutor(at_once, "describe")
    try:
        futures: list[Future[DescribedClass]] = [pool.submit(run.describe, item) for item in classes]
        for future in as_completed(futures):
            outcome = future.result()
            outcomes[outcome.name] = outcome
            tell(outcome)
    finally:
        # After an interruption too: requests in flight are paid for, so their answers are kept.
        run.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _settings(question: Question, server: Asker, temperature: float | None) -> dict[str, Any]:
    return {
        "model": server.model_name,
        "server": server.kind,
        "prompt_version": PROMPT_VERSION,
        "count": question.count,
        "setting": question.setting,
        "language": question.language,
        "temperature": temperature,
    }


def _written_before(output: Path, settings: Mapping[str, Any]) -> dict[str, PackClass]:
    """Return the classes of a pack that an earlier run wrote with these settings."""
    if not output.exists():
        return {}
    pack = load_pack(output)
    recorded = {key: pack.provenance.get(key) for key in settings}
    changed = differences(recorded, settings)
    if pack.provenance.get("method") != METHOD or changed:
        how = changed or "it was not written by ost describe"
        raise UsageError(f"{output}: is there already ({how})", "write elsewhere", "pass {overwrite}")
    return {item.name: item for item in pack.classes}


def _described(outcomes: Mapping[str, DescribedClass]) -> dict[str, PackClass]:
    return {name: outcome.item for name, outcome in outcomes.items() if outcome.item}


def _write_described(
    requested: Pack, outcomes: Mapping[str, DescribedClass], settings: Mapping[str, Any], output: Path
) -> Pack | None:
    """Write the classes that passed, in the order of `requested`; return None if none passed."""
    described = _described(outcomes)
    if not described:
        return None
    missing = [name for name in requested.names if name not in described]
    provenance = {
        "method": METHOD,
        **settings,
        "date": datetime.now(UTC).date().isoformat(),
        **({"missing": missing} if missing else {}),
    }
    classes = tuple(described[name] for name in requested.names if name in described)
    pack = Pack(output.stem, classes, provenance=provenance)
    save_pack(pack, output)
    return pack
