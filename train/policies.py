"""A policy by the name that the command line gives it."""

from __future__ import annotations

import warnings

from recorder.errors import FireflyError
from train.policy import Policy

API = ("openai", "anthropic")
BASELINES = ("oracle", "do-nothing", "random")
NAMES = ("local", *API, *BASELINES)


def make(
    kind: str,
    model: str | None,
    *,
    base_url: str | None = None,
    price: str | None = None,
    max_usd: float | None = None,
    temperature: float | None = None,
) -> Policy:
    """Return a policy.

    Args:
        kind: One of `NAMES`.
        model: A folder or a name of the Hub, or the model's name at an API; baselines have none.
        price: Dollars for a million tokens in and out, such as `0.2,0.8`.
        temperature: By default 1 for a local model, and the API's own.

    Raises:
        FireflyError: something is missing, or does not go with the others.
    """
    if kind in BASELINES:
        if model is not None:
            raise FireflyError(f"--policy {kind} has no model; --model goes with local, {' and '.join(API)}")
        from train.baselines import DoNothing, Oracle, Random

        baselines: dict[str, type[Oracle | DoNothing | Random]] = {
            "oracle": Oracle,
            "do-nothing": DoNothing,
            "random": Random,
        }
        return baselines[kind]()
    if model is None:
        raise FireflyError(f"--policy {kind} needs --model")
    if kind == "local":
        return _local(model, 1.0 if temperature is None else temperature)
    from train.openai_policy import read_price

    told = read_price(price) if price is not None else None
    if kind == "openai":
        from train.openai_policy import OpenAIPolicy

        return OpenAIPolicy(model, base_url=base_url, max_usd=max_usd, temperature=temperature, price=told)
    from train.anthropic_policy import AnthropicPolicy

    return AnthropicPolicy(model, base_url=base_url, max_usd=max_usd, temperature=temperature, price=told)


def _local(model: str, temperature: float) -> Policy:
    need_training("--policy local")
    from train.chat import Chat, load_tokenizer
    from train.local_policy import LocalPolicy
    from train.models import check_size, load, name_of

    check_size(model)
    # Before the weights, which take longer.
    tokenizer = load_tokenizer(model)
    return LocalPolicy(load(model), Chat(tokenizer), name=name_of(model), temperature=temperature)


def need_training(what: str) -> None:
    """Make sure that the extra is installed that trains and runs local models.

    Raises:
        FireflyError: it is not.
    """
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "trl", "peft", "datasets") if not find_spec(name)]
    if missing:
        raise FireflyError(f"{what} needs {missing[0]}: pip install 'firefly-proxy[train]'")
    # What these libraries say to each other about their next versions is no news to who runs a command.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch)\.")
