"""`ost describe`: write a checked pack of descriptors for class names."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.text import Text

from ost.activity import activity
from ost.cli.terminal import show_notices, stderr, stdout
from ost.errors import UsageError

if TYPE_CHECKING:
    from ost.descriptors.pack import Pack
    from ost.descriptors.write.question import Question
    from ost.descriptors.write.run import DescribedClass, Written

LETTERS_A_TOKEN, TOKENS_A_DESCRIPTOR = 4, 15  # rough averages, for the estimate of --dry-run


@dataclass(frozen=True)
class QuestionOptions:
    """What is asked about each class."""

    PANEL: ClassVar = "Input"
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=16, help="Descriptors of each kind.")] = 4
    context: Annotated[
        str, typer.Option(help='Where and how it is filmed: "kitchen, fixed camera above the table".')
    ] = ""
    language: Annotated[str, typer.Option(help="Of the descriptors.")] = "English"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `ost.knowledge.question`."""
        return {"count": self.count, "setting": self.context, "language": self.language}


@dataclass(frozen=True)
class ServerOptions:
    """Which LLM answers, and how it is asked."""

    PANEL: ClassVar = "Model"
    model: Annotated[
        str | None, typer.Option(help="Model, by the server's name.", show_default="the only one it has")
    ] = None
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Server, as http://localhost:11434/v1.", show_default="OPENAI_BASE_URL, or OpenAI's own"
        ),
    ] = None
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="Of the model.", show_default="the server's")
    ] = None
    at_once: Annotated[int, typer.Option(min=1, max=256, help="Requests in flight.")] = 8
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until a request counts as lost.")] = 300
    backbone: Annotated[
        str | None,
        typer.Option(help="Whose text tower the prompts must fit.", show_default="ViT-B-16/openai"),
    ] = None


@dataclass(frozen=True)
class PackOptions:
    """Where the pack goes, and what is printed beside it."""

    PANEL: ClassVar = "Output"
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The pack file to write.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Ask again even if the pack exists.")] = False
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="Price of a million tokens, for the total.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be asked, and ask nobody.")] = (
        False
    )


def describe(
    classes: Annotated[
        str, typer.Argument(metavar="SPEC", help="Comma list, text file, id,name CSV, or a pack.")
    ],
    asking: QuestionOptions,
    server: ServerOptions,
    result: PackOptions,
) -> None:
    """Have an LLM write the descriptors of your classes: any server that speaks OpenAI's protocol.

    The key is taken from OPENAI_API_KEY. A run that is stopped goes on where it was when started again.
    """
    prices, output = parse_price(result.price), result.output
    from ost import knowledge
    from ost.descriptors.spec import class_list

    pack = class_list(classes)
    if result.dry_run:
        _show_questions(knowledge.question(pack, **asking.arguments()), pack, prices)
        return
    if output is None:
        raise UsageError("say where the pack goes with -o pack.json, or look at the questions with --dry-run")
    with activity("describing", len(pack)) as describing:

        def tell(outcome: DescribedClass) -> None:
            describing.advance()

        written = knowledge.describe(
            pack,
            output,
            **asking.arguments(),
            **asdict(server),
            overwrite=result.overwrite,
            tell=tell,
            notice=lambda line: show_notices(stderr(), [line]),
        )
    _show(written, output, prices)


def parse_price(text: str | None) -> tuple[float, float] | None:
    """Parse "0.15,0.6" into the prices (input, output) of a million tokens."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*,\s*(\d*\.?\d+)\s*", text)
    if not match:
        raise UsageError(f"--price is IN,OUT for a million tokens, such as 0.15,0.6, not {text!r}")
    return float(match[1]), float(match[2])


def _show_questions(question: Question, pack: Pack, prices: tuple[float, float] | None) -> None:
    conversations = [question.messages(name) for name in pack.names]
    for number, messages in enumerate(conversations):
        for message in messages[1 if number else 0 :]:  # the first is the same for every class
            stdout().print(Text(f"[{message['role']}]\n{message['content']}\n"))
    letters = sum(len(message["content"]) for messages in conversations for message in messages)
    answers = len(pack) * question.count * 2 * TOKENS_A_DESCRIPTOR
    totals = _totals(letters // LETTERS_A_TOKEN, answers, prices)
    stderr().print(f"{len(pack)} requests, about {totals} if every first answer passes")


def _show(written: Written, output: Path, prices: tuple[float, float] | None) -> None:
    notes = stderr()
    if written.pack:
        summary = f"{output}: {len(written.pack)} classes, hash {written.pack.hash[:12]}"
        stdout().print(Text(summary))
    totals = _totals(written.tokens_in, written.tokens_out, prices)
    notes.print(f"{written.requests} answers, {totals}")
    if written.failed:
        notes.print(Text(f"{len(written.failed)} classes have no descriptors:", style="red"))
        for outcome in written.failed:
            notes.print(Text(f"  {outcome.name}: {'; '.join(outcome.faults)}"))
        notes.print("run the same command again to ask about these, or try a stronger model")
        raise typer.Exit(1)


def _totals(tokens_in: int, tokens_out: int, prices: tuple[float, float] | None) -> str:
    cost = ""
    if prices:
        cost = f", {(tokens_in * prices[0] + tokens_out * prices[1]) / 1e6:.4f} in the currency of --price"
    return f"{tokens_in:,} tokens in and {tokens_out:,} out{cost}"
