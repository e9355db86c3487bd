"""One conversation with one or more models: what was said, what they are asked, and where answers come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ltm.export.generate import Sampling
from ltm.export.retrieve import Library, Passage, prompt_with
from ltm.export.speakers import Speaker

_CHARACTERS_PER_TOKEN = 3.5
_RAG_SHARE = 0.6  # of the context that passages may take
_PASSAGES = 3


@dataclass
class Turn:
    """What a person wrote, and what each model answered."""

    text: str
    passages: list[Passage] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)  # by speaker


class Conversation:
    """What has been said so far.

    Args:
        speakers: The models; each goes on from its own answers.
        sampling: How they choose.
        library: Where passages are looked for; None = nowhere.
    """

    def __init__(self, speakers: list[Speaker], sampling: Sampling, library: Library | None = None) -> None:
        self.speakers, self.sampling, self.library = speakers, sampling, library
        self.turns: list[Turn] = []

    def ask(self, text: str) -> Turn:
        """Begin a turn; returns it with the passages that bear on it."""
        passages = self.library.find(text, _PASSAGES) if self.library is not None else []
        turn = Turn(text, passages, [""] * len(self.speakers))
        self.turns.append(turn)
        return turn

    def answer(self, which: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Yield one model's answer to the newest turn, and keep it."""
        turn, speaker = self.turns[-1], self.speakers[which]
        first = True
        for piece in speaker.go_on(self.prompt(which), self.sampling, stopped):
            shown = piece.lstrip() if first and speaker.template is not None else piece
            first = first and not shown
            turn.answers[which] += shown
            if shown:
                yield shown

    def prompt(self, which: int) -> str:
        """Return what a model is given: the conversation by its template, or one text that it goes on with."""
        speaker = self.speakers[which]
        newest = self.turns[-1]
        room = int(speaker.context_tokens * _RAG_SHARE * _CHARACTERS_PER_TOKEN)
        text = prompt_with(newest.passages, newest.text, room) if newest.passages else newest.text
        if speaker.template is None:
            before = "".join(turn.text + turn.answers[which] + "\n" for turn in self.turns[:-1])
            return before + text
        messages = []
        for turn in self.turns[:-1]:
            messages += [{"role": "user", "content": turn.text}]
            messages += [{"role": "assistant", "content": turn.answers[which]}]
        return speaker.template.text([*messages, {"role": "user", "content": text}], ask=True)

    def undo(self) -> bool:
        """Forget the newest turn; returns whether there was one."""
        return bool(self.turns and self.turns.pop())

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()

    def set(self, name: str, value: float) -> None:
        """Change one setting of how answers are chosen.

        Raises:
            InputError: it makes no sense, or there is no such setting.
        """
        from ltm.errors import InputError

        known = {item.name: item for item in dataclasses.fields(Sampling)}
        if name not in known:
            raise InputError(f"there is no setting `{name}`", f"known: {', '.join(known)}")
        kind = type(getattr(self.sampling, name))
        self.sampling = dataclasses.replace(self.sampling, **{name: kind(value)}).checked()
