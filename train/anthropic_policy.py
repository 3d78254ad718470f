"""A model behind the Messages API of Anthropic as a policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anyio import CapacityLimiter, to_thread

from recorder import claude_api
from recorder.claude_api import (
    FRAME_TOKENS,
    BudgetError,
    ClaudeApi,
    CompletionError,
    Price,
    most_tokens,
    size_tokens,
)
from recorder.exchange import Json
from recorder.explore.claude_wire import api_schema, json_text, replayed
from train.environment import Message
from train.policy import OutOfBudget, Reply, Seat
from train.turns import NoRoom, Refused, Turns, call_of, from_model, with_room

BREAKPOINT = {"type": "ephemeral"}


class AnthropicPolicy:
    """Asks for one message a request, from a thread of its own.

    The API has no seeds: two rollouts with the same one differ. It keeps what the turns of a rollout have in
    common in its cache.

    Args:
        model, base_url, api_key, price: As for `ClaudeApi`.
        max_usd: Of all rollouts together.
        temperature: For the models that take one; current ones refuse it.
        timeout_s: How long one attempt may take.

    Raises:
        FireflyError: there are no usable credentials, `base_url` is no URL, or there is a budget without
            a price.
    """

    batched = False

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        max_usd: float | None = None,
        temperature: float | None = None,
        price: Price | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        self.name = model
        self._temperature = temperature
        self._answered = False
        self._api = ClaudeApi(
            model, base_url=base_url, api_key=api_key, timeout_s=timeout_s, max_usd=max_usd, price=price
        )

    @property
    def spent_usd(self) -> float:
        """As `ClaudeApi.spent_usd` counts it."""
        return self._api.spent_usd

    def under_way(self, rollouts: int) -> None:
        pass

    def close(self) -> None:
        self._api.close()

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        """Return the next message, as `Policy.act` says.

        Raises:
            FireflyError: no rollout would get an answer, as the key or the model's name is wrong.
        """
        room = seat.max_tokens - seat.spent_tokens
        if room < 1:
            return Reply(None)
        system = [
            {"type": "text", "text": message["content"], "cache_control": BREAKPOINT}
            for message in messages
            if message["role"] == "system"
        ]
        offered = [_tool(tool["function"]) for tool in tools]
        if seat.kept is None:
            seat.kept = Turns([], most_tokens([], system, offered))
        turns: Turns = seat.kept
        said = _from_user(turns.new(messages))
        turns.messages.append(said)
        turns.most_tokens += size_tokens(said)
        reply = await with_room(partial(self._ask, turns, system, offered), room)
        if reply is None:
            return Reply(None)
        turns.taken += 1
        turns.most_tokens = (reply.input_tokens or turns.most_tokens) + reply.output_tokens + FRAME_TOKENS
        return Reply(
            _message(reply, turns),
            prompt_tokens=reply.input_tokens,
            cached_tokens=reply.cache_read_tokens,
            completion_tokens=reply.output_tokens,
            cost_usd=reply.cost_usd,
            truncated=reply.stop_reason in ("max_tokens", "model_context_window_exceeded"),
        )

    async def _ask(
        self, turns: Turns, system: list[Json], tools: list[Json], room: int
    ) -> claude_api.Message:
        ask = partial(
            self._api.ask,
            _with_breakpoints(turns.messages),
            room,
            system=system,
            tools=tools,
            most_input_tokens=turns.most_tokens,
            caching=True,
            temperature=self._temperature,
        )
        try:
            # How many ask at once is for others to say. A run that ends does not wait for what nobody reads.
            reply = await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        except BudgetError as error:
            raise OutOfBudget(str(error)) from error
        except CompletionError as error:
            refused = Refused(str(error), error.status)
            if refused.is_for_room:
                raise NoRoom from error
            raise refused.error(answered=self._answered) from error
        self._answered = True
        return reply


def _tool(function: Json) -> Json:
    """Return a tool as the API takes it; what its schema cannot say there, its description does."""
    schema, whole = api_schema(function["parameters"])
    description = function["description"]
    if not whole:
        text = json_text(function["parameters"])
        description = f"{description}\n\nThe arguments must follow this JSON Schema: {text}".strip()
    described = {"description": description} if description else {}
    return {"name": function["name"], **described, "input_schema": schema}


def _from_user(messages: Sequence[Message]) -> Json:
    """Return a turn of the user: the question, or all results of the calls of the turn before."""
    blocks: list[Json] = []
    for message in messages:
        text = message["content"]
        # The API takes no text that is empty.
        texts = [{"type": "text", "text": text}] if text.strip() else []
        match message["role"]:
            case "tool":
                result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
                blocks.append({**result, "content": texts} if texts else result)
            case "user":
                blocks += texts
    return {"role": "user", "content": blocks}


def _with_breakpoints(turns: Sequence[Json]) -> list[Json]:
    """Mark the end of the conversation for the cache, and the end at the turn before.

    The API looks back some twenty blocks from a breakpoint for what it has cached, and a turn with many
    parallel calls has more.
    """
    marked = list(turns)
    of_user = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    for place in of_user[-2:]:
        *before, last = turns[place]["content"]
        marked[place] = {"role": "user", "content": [*before, {**last, "cache_control": BREAKPOINT}]}
    return marked


def _message(reply: claude_api.Message, turns: Turns) -> Message:
    """Return what the model wrote as a message, and keep it as a turn that can be sent back."""
    texts: list[str] = []
    calls: list[Json] = []
    blocks: list[Json] = []
    for block in reply.content:
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "tool_use"}:
                identifier = turns.new_id(block.get("id"))
                name, given = block.get("name"), block.get("input")
                calls.append(call_of(identifier, name, {} if given is None else given))
                block = {"type": "tool_use", "id": identifier, "name": calls[-1]["function"]["name"]}
                block["input"] = given
        blocks.append(block)
    if reply.stop_reason == "refusal":
        calls = []
    turns.messages.append({"role": "assistant", "content": replayed(blocks)})
    return from_model("".join(texts), calls)
