"""The run over all classes: ask, judge, ask again, keep every answer, and write the pack at the end."""

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

TRIES = 4  # asked, and asked again three times
PATIENCE = 3  # requests in a row that no try of theirs got an answer for; then nobody is there
METHOD = "written by an LLM (ost describe)"
QUOTED = 2000  # characters of a faulty answer that are shown to its author again


class Asker(Protocol):
    """What a run needs of a server; `write.server.Server` is one."""

    kind: str

    @property
    def model_name(self) -> str:
        """The model, as others may be told it."""
        ...

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Answer:
        """One answer to a conversation."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of one class.

    Attributes:
        name: the class.
        item: with its descriptors; None if none passed.
        faults: of the last answer, if none passed.
    """

    name: str
    item: PackClass | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A finished run.

    Attributes:
        pack: as written to the file; None if no class passed, and then nothing was written.
        failed: the classes whose answers did not pass.
        requests, tokens_in, tokens_out: answers received and tokens billed, those of an interrupted run that
            this one went on with included.
    """

    pack: Pack | None
    failed: tuple[Outcome, ...]
    requests: int
    tokens_in: int
    tokens_out: int


@dataclass
class _Run:
    """What the threads of one run share."""

    question: Question
    server: Asker
    journal: Journal
    context: TextContext | None
    stop: Event = field(default_factory=Event)
    failure: ServerFailed | None = None
    unanswered: int = 0
    counting: Lock = field(default_factory=Lock)

    def describe(self, asked: PackClass) -> Outcome:
        """Ask about one class until an answer passes, going on after the answers that the journal has."""
        messages = self.question.messages(asked.name)
        judged = Judged(None, ("it was not asked about",))
        paid = self.journal.answers.get(asked.name, [])[:TRIES]
        for answer in paid:
            judged = self._take(messages, answer, asked)
        for _ in range(len(paid), TRIES):
            if judged.item or self.stop.is_set():
                break
            try:
                answer = self.server.ask(messages, self.question.schema())
            except RequestFailed as error:
                self._count(error)
                return Outcome(asked.name, None, (str(error),))
            except ServerFailed as error:
                self.failure = error
                self.stop.set()
                break
            self._count(None)
            self.journal.add(asked.name, answer)
            judged = self._take(messages, answer, asked)
        return Outcome(asked.name, judged.item, judged.faults)

    def _take(self, messages: list[Message], answer: Answer, asked: PackClass) -> Judged:
        """Judge an answer; a faulty one becomes part of the conversation, with its faults."""
        judged = judge(answer.text, asked, count=self.question.count, context=self.context)
        if judged.item is None:
            messages.append({"role": "assistant", "content": answer.text[:QUOTED] or "{}"})
            messages.append(self.question.again(judged.faults))
        return judged

    def _count(self, error: RequestFailed | None) -> None:
        with self.counting:
            self.unanswered = self.unanswered + 1 if isinstance(error, Unanswered) else 0
            if self.unanswered >= PATIENCE:
                self.failure = ServerFailed(str(error))
                self.stop.set()


def write_pack(
    wanted: Pack,
    question: Question,
    server: Asker,
    output: Path,
    *,
    context: TextContext | None = None,
    at_once: int = 8,
    temperature: float | None = None,
    overwrite: bool = False,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> Written:
    """Describe the classes of `wanted` and write them to `output`.

    Beside `output` a journal keeps every answer as it comes. A run that was killed goes on where it was, and
    one over more classes with the same settings asks only about the new ones.

    Args:
        wanted: names and labels; descriptors it may have are not looked at.
        question: what to ask.
        server: whom to ask.
        output: the pack file.
        context: of the backbone that will read the prompts; see `class_faults`.
        at_once: requests in flight.
        temperature: what the server was told, for the provenance.
        overwrite: ask about every class even if `output` is there.
        tell: is given each outcome as it comes.

    Raises:
        UsageError: `output` was written by hand or with other settings, or another run is writing it.
        PackError: `output` or the journal cannot be read.
        ServerFailed: the server answers nobody; what it answered before is in the journal.
    """
    settings = _settings(question, server, temperature)
    kept = {} if overwrite else _kept(output, settings)
    journal = Journal(output.with_name(f"{output.name}.journal"), settings)
    try:
        run = _Run(question, server, journal, context)
        classes = [PackClass(item.name, label=item.label) for item in wanted.classes]
        outcomes = {item.name: Outcome(item.name, kept[item.name]) for item in classes if item.name in kept}
        for outcome in outcomes.values():
            tell(outcome)
        _ask_all(run, [item for item in classes if item.name not in kept], at_once, outcomes, tell)
        if run.failure:
            raise ServerFailed(
                f"{run.failure}; {len(_done(outcomes))} of {len(wanted)} classes are done and kept, "
                "run the same command again to go on"
            )
        pack = _pack(wanted, outcomes, settings, output)
    except BaseException:
        journal.close()
        raise
    journal.close(remove=True)
    answers = [answer for name in wanted.names for answer in journal.answers.get(name, [])]
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
    outcomes: dict[str, Outcome],
    tell: Callable[[Outcome], None],
) -> None:
    pool = ThreadPoolExecutor(at_once, "describe")
    try:
        futures: list[Future[Outcome]] = [pool.submit(run.describe, item) for item in classes]
        for future in as_completed(futures):
            outcome = future.result()
            outcomes[outcome.name] = outcome
            tell(outcome)
    finally:
        # On the way out of an interruption too: requests in flight are paid for, so their answers are kept.
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


def _kept(output: Path, settings: Mapping[str, Any]) -> dict[str, PackClass]:
    """The classes of a pack that a run with these settings wrote before."""
    if not output.exists():
        return {}
    pack = load_pack(output)
    found = {key: pack.provenance.get(key) for key in settings}
    changed = differences(found, settings)
    if pack.provenance.get("method") != METHOD or changed:
        how = changed or "it was not written by ost describe"
        raise UsageError(f"{output}: is there already ({how})", "write elsewhere", "pass {overwrite}")
    return {item.name: item for item in pack.classes}


def _done(outcomes: Mapping[str, Outcome]) -> dict[str, PackClass]:
    return {name: outcome.item for name, outcome in outcomes.items() if outcome.item}


def _pack(
    wanted: Pack, outcomes: Mapping[str, Outcome], settings: Mapping[str, Any], output: Path
) -> Pack | None:
    """Write the classes that passed, in the order they were asked for."""
    done = _done(outcomes)
    if not done:
        return None
    missing = [name for name in wanted.names if name not in done]
    provenance = {
        "method": METHOD,
        **settings,
        "date": datetime.now(UTC).date().isoformat(),
        **({"missing": missing} if missing else {}),
    }
    classes = tuple(done[name] for name in wanted.names if name in done)
    pack = Pack(output.stem, classes, provenance=provenance)
    save_pack(pack, output)
    return pack
