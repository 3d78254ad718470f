"""A model of transformers as a policy, on this machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from recorder.errors import FireflyError
from recorder.exchange import Json
from train.chat import Chat
from train.environment import Message
from train.policy import Reply, Seat


@dataclass(slots=True)
class _Kept:
    """A rollout's tokens."""

    prompt: list[int]
    completion: list[int] = field(default_factory=list)
    """All after the prompt: what the model wrote, and the results of tools."""
    messages: int = 0
    """Of the conversation, that the tokens stand for."""
    turn: int = 0


@dataclass(slots=True)
class _Request:
    seat: Seat
    kept: _Kept
    room: int
    """How many tokens the model may write."""
    ready: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)
    batch: list[_Request] = field(default_factory=list)
    """Set for the one that generates for all of them."""
    ids: list[int] = field(default_factory=list)
    failure: BaseException | None = None


class LocalPolicy:
    """Generates for all rollouts under way at once: a batch runs when each of them has asked.

    Chance comes from each rollout's own seed, one number a token, so that a rollout does not depend on which
    others are in its batch (but for the rounding of batched arithmetic).

    Args:
        model: In evaluation mode or not; it is put back as it was. Of its generation settings, only the end
            tokens are used.
        temperature: 0 takes the likeliest token.
    """

    batched = True

    def __init__(self, model: PreTrainedModel, chat: Chat, *, name: str, temperature: float = 1.0) -> None:
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        self.name = name
        self._model, self._chat, self._temperature = model, chat, temperature
        tokenizer = chat.tokenizer
        known = model.generation_config.eos_token_id if model.generation_config is not None else None
        ends = known if isinstance(known, list) else [] if known is None else [known]
        self._ends = sorted({*ends, tokenizer.eos_token_id})
        self._pad = tokenizer.pad_token_id
        longest = getattr(model.config, "max_position_embeddings", None)
        self._longest = longest if isinstance(longest, int) else 1 << 30
        self._live = 0
        self._waiting: list[_Request] = []

    def under_way(self, rollouts: int) -> None:
        self._live = rollouts
        self._start_if_all_wait()

    def close(self) -> None:
        pass

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        kept = self._continued(messages, tools, seat)
        used = len(kept.completion)
        room = seat.max_tokens - used
        if room <= 0 or len(kept.prompt) + used >= self._longest:
            return Reply(None, prompt_tokens=0)
        request = _Request(seat, kept, min(room, self._longest - len(kept.prompt) - used))
        self._waiting.append(request)
        self._start_if_all_wait()
        await request.ready.wait()
        if request.batch:
            self._run(request.batch)
        await request.done.wait()
        if request.failure is not None:
            raise request.failure
        prefix = kept.prompt + kept.completion
        message = self._chat.parse(request.ids, prefix, tools)
        kept.completion += request.ids
        kept.messages = len(messages) + 1
        kept.turn += 1
        return Reply(
            message,
            prompt_tokens=len(prefix),
            completion_tokens=len(request.ids),
            truncated=request.ids[-1] not in self._ends,
        )

    def _continued(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> _Kept:
        """Return the tokens of a conversation, with what the model wrote as it wrote it."""
        if seat.kept is None:
            seat.kept = _Kept(self._chat.prompt_ids(messages, tools))
        else:
            seat.kept.completion += self._chat.suffix_ids(messages[seat.kept.messages :])
        kept: _Kept = seat.kept
        return kept

    def _start_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) >= self._live:
            batch = sorted(self._waiting, key=lambda request: request.seat.number)
            self._waiting = []
            batch[0].batch = batch
            batch[0].ready.set()

    def _run(self, batch: list[_Request]) -> None:
        try:
            written = self._generate(batch)
        except BaseException as error:  # the others of the batch wait for it, whatever it was
            failure: BaseException = error
            if isinstance(error, torch.OutOfMemoryError):
                failure = FireflyError(
                    f"the GPU has no room for {len(batch)} rollouts at once: let fewer be under way"
                    " (--concurrency), or shorter ones (--max-tokens)"
                )
            for request in batch:
                request.failure = failure
            written = [[] for _ in batch]
        for request, ids in zip(batch, written, strict=True):
            request.ids = ids
            request.ready.set()
            request.done.set()

    def _generate(self, batch: list[_Request]) -> list[list[int]]:
        """Return what the model writes in each conversation: up to an end token, or as room allows."""
        rows = [request.kept.prompt + request.kept.completion for request in batch]
        width = max(map(len, rows))
        ids = torch.tensor([[self._pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        device = self._model.device
        make: Any = GenerationConfig
        settings = make(
            max_new_tokens=max(request.room for request in batch),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=self._ends,
            pad_token_id=self._pad,
            disable_compile=True,
        )
        training, own = self._model.training, self._model.generation_config
        self._model.train(False)
        # Else what a checkpoint has for settings of its own would fill in what ours leave open.
        self._model.generation_config = settings
        try:
            with torch.no_grad():
                # A stub in transformers has `generate` of another class.
                generate: Any = self._model.generate
                made = generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    generation_config=settings,
                    logits_processor=self._chance(batch),
                )
        finally:
            self._model.train(training)
            self._model.generation_config = own
        found = []
        for request, row in zip(batch, made[:, width:].tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in self._ends), len(row))
            found.append(row[: min(end + 1, request.room)])
        return found

    def _chance(self, batch: list[_Request]) -> LogitsProcessorList:
        if not self._temperature:
            return LogitsProcessorList()
        chances = [random.Random(f"{request.seat.seed}/{request.kept.turn}") for request in batch]
        return LogitsProcessorList([_Sampled(self._temperature, chances)])


class _Sampled(LogitsProcessor):
    """Draws each row's next token from that row's own source of chance, and leaves no other."""

    def __init__(self, temperature: float, chances: list[random.Random]) -> None:
        self._temperature, self._chances = temperature, chances

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if torch.isnan(scores).any():
            raise FireflyError("the model computes no numbers (NaN): its weights are broken, or training was")
        # In double: the tail of a large vocabulary would be lost to rounding.
        rising = torch.softmax(scores.double() / self._temperature, -1).cumsum(-1)
        chances = [[chance.random()] for chance in self._chances]
        drawn = torch.tensor(chances, dtype=torch.float64, device=scores.device)
        token = (rising <= drawn * rising[:, -1:]).sum(-1, keepdim=True)
        only = torch.full_like(scores, -torch.inf)
        last = scores.shape[-1] - 1
        return only.scatter_(-1, token.clamp_(max=last), 0.0)  # type: ignore[return-value]  # a Tensor of floats
