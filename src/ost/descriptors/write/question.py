"""The request to an LLM: the two questions of OST (Chen et al., CVPR 2024, section 3.2), made precise.

The paper asks for "static visual descriptors" and for "decompositions of steps". Both go into one request,
with the number of descriptors, what counts as visible, the classes that could be mistaken for this one, and the
user's setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROMPT_VERSION = 1

Message = dict[str, str]


@dataclass(frozen=True)
class Question:
    """The request that is made for every class.

    Attributes:
        count: number of descriptors of each kind.
        setting: where and how the videos are filmed, in the user's words; may be empty.
        language: the language of the descriptors.
        neighbours: class name -> the names it is most easily mistaken for.
    """

    count: int = 4
    setting: str = ""
    language: str = "English"
    neighbours: Mapping[str, Sequence[str]] | None = None

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of an answer."""
        texts = {
            "type": "array",
            "items": {"type": "string"},
            "minItems": self.count,
            "maxItems": self.count,
        }
        return {
            "type": "object",
            "properties": {"spatial": texts, "temporal": texts},
            "required": ["spatial", "temporal"],
            "additionalProperties": False,
        }

    def messages(self, name: str) -> list[Message]:
        """Return the conversation that asks about one class."""
        return [
            {"role": "system", "content": self._rules()},
            {"role": "user", "content": self._about(name)},
        ]

    def again(self, faults: Sequence[str]) -> Message:
        """Return the message that names the faults of an answer and asks for a better one."""
        listed = "\n".join(f"- {fault}" for fault in faults)
        return {
            "role": "user",
            "content": f"That answer cannot be used:\n{listed}\n"
            f"Give the whole answer again, mended, as JSON with {self.count} spatial and "
            f"{self.count} temporal texts.",
        }

    def _rules(self) -> str:
        n = self.count
        example = ", ".join(['"..."'] * n)
        return (
            "You describe what actions look like in videos, for a system that compares video frames with "
            f"short texts. For the action you are given, write {n} spatial and {n} temporal descriptors.\n"
            "Spatial: static visual descriptors, what a single frame shows: objects, tools, place, clothing, "
            "pose, view. Noun phrases with concrete nouns. Never the name of the action, and nothing about "
            "time.\n"
            f"Temporal: a decomposition of the action into {n} steps in the order of time, from its start to "
            "its end. Each step is a short clause that can be seen in frames.\n"
            "Every descriptor has 4 to 12 words, names only what can be seen, and on its own points to this "
            "action rather than to a similar one. No numbering, no full stop, no two alike.\n"
            f"Write the descriptors in {self.language}. Answer with JSON only: "
            f'{{"spatial": [{example}], "temporal": [{example}]}}'
        )

    def _about(self, name: str) -> str:
        lines = [f"Action: {name}"]
        if self.setting:
            lines.append(f"Where and how it is filmed: {self.setting}")
        if near := (self.neighbours or {}).get(name):
            lines.append(f"It must not be mistaken for: {'; '.join(near)}. Describe what looks different.")
        return "\n".join(lines)
