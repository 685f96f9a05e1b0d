"""Have an LLM write a checked pack for class names, given a server, a text tower and similar names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ost.backbones.catalog import DEFAULT
from ost.backbones.names import check_backbone
from ost.backbones.tokens import text_context
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, class_list
from ost.descriptors.write.question import Question
from ost.descriptors.write.run import DescribedClass, Written, write_pack
from ost.descriptors.write.server import REQUESTS_TRIED, TIMEOUT_S, Server

NEIGHBOURS, ALIKE = 5, 0.3  # how many names, and the cosine from which one can be mistaken for another


def describe(
    spec: Spec,
    output: str | Path,
    *,
    model: str | None = None,
    base_url: str | None = None,
    count: int = 4,
    setting: str = "",
    language: str = "English",
    backbone: str | None = None,
    temperature: float | None = None,
    at_once: int = 8,
    tries: int = REQUESTS_TRIED,
    timeout: float = TIMEOUT_S,
    overwrite: bool = False,
    tell: Callable[[DescribedClass], None] = lambda _: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Written:
    """Have an LLM write descriptors for classes, check them, and write the pack.

    Args:
        spec: the classes: names, a file, or anything else that names them.
        output: the pack file; a journal is kept beside it until the run is over, see `write_pack`.
        model, base_url, temperature, tries, timeout: see `Server`; the key comes from OPENAI_API_KEY.
        count: number of descriptors of each kind.
        setting: where and how the videos are filmed, as in "kitchen, fixed camera above the table".
        language: the language of the descriptors.
        backbone: the backbone whose text tower the prompts must fit; by default CLIP.
        at_once: number of requests in flight.
        overwrite: ask about every class even if `output` exists.
        tell: called with each class's outcome as it arrives.
        notice: called with each sentence that the user should read.

    Raises:
        UsageError, ServerFailed, PackError, WeightsError: see `write_pack`, `Server` and `text_context`.
    """
    classes = class_list(spec)
    check_backbone(backbone or DEFAULT)
    with Server(model, base_url, temperature=temperature, tries=tries, timeout=timeout) as server:
        # Only once a server has answered: loading a text tower's tokenizer takes seconds.
        context = text_context(backbone)
        class_question = question(classes, count=count, setting=setting, language=language)
        written = write_pack(
            classes,
            class_question,
            server,
            Path(output),
            context=context,
            at_once=at_once,
            temperature=temperature,
            overwrite=overwrite,
            tell=tell,
        )
        for line in server.notices:
            notice(line)
    return written


def question(classes: Pack, *, count: int = 4, setting: str = "", language: str = "English") -> Question:
    """Return the question for every class of a list, with the names that it could be mistaken for."""
    return Question(count, " ".join(setting.split()), language, neighbours(classes.names))


def neighbours(names: tuple[str, ...], most: int = NEIGHBOURS) -> dict[str, tuple[str, ...]]:
    """Return, for each name, the names of the list that are closest in meaning, by MiniLM embeddings."""
    from ost.backbones.lite.minilm import MiniLM

    values = MiniLM.installed().embed(names)
    similarity = values @ values.T
    similarity.fill_diagonal_(-1)
    cosines, near = similarity.topk(min(most, len(names) - 1))
    return {
        name: tuple(names[i] for cosine, i in zip(row, others, strict=True) if cosine >= ALIKE)
        for name, row, others in zip(names, cosines.tolist(), near.tolist(), strict=True)
    }
