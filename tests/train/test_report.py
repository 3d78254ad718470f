"""Reports for people: pages that show whatever models and tools wrote as text, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from synth.task import Task
from tests.train.made_rollouts import ANSWERED, MISS, failed, rollout, task
from train.document import Conversation, Heading, Plot, Table, Text, Turn, html_page, markdown
from train.environment import CallMade, Message
from train.plots import learning_curves, smoothed
from train.report import (
    compare_markdown,
    compare_text,
    conversation_of,
    print_summary,
    sampled,
    write_report,
)
from train.rollout import Rollout
from train.summary import compare, summarise

EVIL = (
    "\x00\x1b[31m\ud800$\\frac$</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
    " `` ``` | *a* _b_ [c](d)"
)
"""What no page may take for mark-up."""

FENCES = "```\n<script>alert(3)</script>\n````\n# A heading"
"""What would end a block of code."""

TASKS = {
    each.task_id: each
    for each in (
        task("a", EVIL, question=f"Which? {EVIL}"),
        task("b", "mail", level="medium", calls=2),
        task("c", "mail", "shop", level="hard", calls=5),
    )
}


def talk(*calls: tuple[str, str], answer: str = '{"x": 1}') -> list[Message]:
    """Make the messages of a rollout: each call with what it was answered, then the answer."""
    messages: list[Message] = [
        {"role": "system", "content": "The system prompt."},
        {"role": "user", "content": "The question."},
    ]
    for name, result in calls:
        function = {"name": name, "arguments": {"q": name}}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": function}]},
            {"role": "tool", "name": name, "content": result},
        ]
    return [*messages, {"role": "assistant", "content": answer}]


def missed(task_id: str, arguments: str, sample: int = 0) -> Rollout:
    told = f"no recorded answer for shop/read({arguments})"
    return rollout(
        task_id,
        None,
        sample=sample,
        calls=[ANSWERED, MISS],
        messages=talk(("read", "7"), ("read", told))[:-1],
    ).model_copy(update={"calls": [ANSWERED, MISS]})


ROLLOUTS = [
    *(rollout("a", n < 3, sample=n, messages=talk((EVIL, EVIL), answer=EVIL)) for n in range(4)),
    *(rollout("b", n < 2, sample=n, messages=talk(("read", FENCES))) for n in range(4)),
    *(missed("c", '{"id": 1}' if n else EVIL, n) for n in range(3)),
    failed("c", f"529 {EVIL}"),
]


def written(folder: Path, rollouts: Sequence[Rollout] = ROLLOUTS, tasks: dict[str, Task] = TASKS) -> Path:
    summary = summarise(rollouts, tasks, [1, 2, 4])
    return write_report(
        folder,
        summary,
        rollouts,
        tasks,
        title=f"A run {EVIL}",
        settings={"policy": EVIL, "limits": {"turns": 3}},
    )


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_models_tools_and_servers_wrote_is_never_mark_up(tmp_path: Path) -> None:
    page = written(tmp_path).read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert {"script", "img", "link", "iframe"}.isdisjoint(tags.names)
    assert {"table", "details", "svg"} <= set(tags.names)
    loads = [value for name, value in tags.attributes if name in ("src", "href", "xlink:href", "action")]
    assert all(value is not None and value.startswith("#") for value in loads)
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert "\x00" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_markdown_shows_mark_up_as_text(tmp_path: Path) -> None:
    written(tmp_path)
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse((tmp_path / "report.md").read_text(encoding="utf-8"))
    inner = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in [*tokens, *inner]}
    assert {"table_open", "fence", "image", "code_inline"} <= kinds
    assert {"html_block", "html_inline", "link_open", "em_open", "strong_open"}.isdisjoint(kinds)
    assert all(str(token.attrs["src"]).endswith(".svg") for token in inner if token.type == "image")
    shown = EVIL.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "?")
    assert shown in {token.content for token in inner if token.type == "code_inline"}
    assert {f"{shown}\n", f"{FENCES}\n"} <= {token.content for token in tokens if token.type == "fence"}
    # No bar in a text begins another cell, which would push the last one out.
    assert [row[-1] for row in rows_of(tokens) if row[0] == "policy"] == [shown]


def rows_of(tokens: Sequence[Token]) -> list[list[str]]:
    """Return the texts of every table row."""
    rows: list[list[str]] = []
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def test_plots_are_valid_and_stand_beside_the_markdown(tmp_path: Path) -> None:
    page = written(tmp_path).read_text(encoding="utf-8")
    plots = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert plots == [
        "calls.svg", "difficulty.svg", "number_of_servers.svg", "pass_at_k.svg", "servers.svg", "stops.svg",
    ]  # fmt: skip
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for name in plots:
        root = ElementTree.fromstring((tmp_path / name).read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert f"]({name})" in text
    assert page.count("<svg") == len(plots)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "one")
    written(tmp_path / "two")
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two


def test_the_report_names_the_missed_calls_the_failures_and_the_settings(tmp_path: Path) -> None:
    written(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert '| 2 | `shop/read` | `{"id": 1}` |' in text
    assert "3 of 12 rollouts met a miss (25.0 %). Were all of them wrong, pass@1 would be 41.7 %" in text
    assert "529" in text
    assert '| limits | `{"turns": 3}` |' in text


def test_without_matplotlib_the_report_says_how_to_get_plots(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from tests.train.test_report import written\n"
        f"written(Path({str(tmp_path)!r}))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[2])
    line = "There are no plots here: plots need matplotlib: pip install 'firefly-proxy[eval]'"
    assert line in (tmp_path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]


def test_a_run_of_nothing_has_a_report_too(tmp_path: Path) -> None:
    page = written(tmp_path, []).read_text(encoding="utf-8")
    assert "3 more not tried" in page


def test_rollouts_to_read_are_of_every_kind_and_spread_over_the_run() -> None:
    run = [rollout("a", right, sample=n) for n, right in enumerate([True, False, None] * 20)]
    run += [failed("a", "why")]
    picked = sampled(run)
    assert [each.right for each in picked] == [True] * 4 + [False] * 7
    assert [each.sample for each in picked] == [6, 21, 36, 51, 7, 22, 37, 52, 17, 47, 0]
    assert sampled(run[:2]) == run[:2]


def test_a_conversation_reads_from_question_to_fields() -> None:
    played = rollout("b", False, fields={"x": True, "y": False, "z": False}, messages=talk(("read", "7")))
    assert conversation_of(played, TASKS["b"]) == Conversation(
        title="What is b?",
        verdict="wrong",
        facts="task b, sample 0; medium, 2 reference calls; 1 call made; ended by answer",
        turns=(
            Turn("user", "", "The question."),
            Turn("call", "read", '{"q": "read"}'),
            Turn("tool", "read", "7"),
            Turn("assistant", "", '{"x": 1}'),
        ),
        fields=Table(
            ("field", "expected", "given"),
            (("x", "1", "right"), ("y", "2", "wrong or absent"), ("z", "", "not asked for")),
            code=frozenset({"field", "expected"}),
        ),
    )


def test_long_texts_and_long_conversations_are_cut() -> None:
    played = rollout("b", messages=talk(*[("read", "x" * 9_000)] * 60))
    shown = conversation_of(played, TASKS["b"])
    assert len(shown.turns) == 41
    assert shown.turns[20].text == "… 82 more messages and calls …"
    assert "… 7,500 more characters …" in shown.turns[2].text
    assert len(shown.turns[2].text) < 1_600


@pytest.mark.parametrize("content", [None, "", ["a", {"b": 1}], 7])
def test_messages_of_any_shape_can_be_shown(content: object) -> None:
    calls = [{"function": {"name": 3, "arguments": "[not JSON"}}]
    messages: list[Message] = [
        {"role": "assistant", "content": content, "tool_calls": calls},
        {"role": "tool", "content": content},
    ]
    call = CallMade(name="3", tool=None, outcome="invalid")
    turns = conversation_of(rollout("b", messages=messages, calls=[call]), TASKS["b"]).turns
    assert Turn("call", "tool", "[not JSON") in turns


# --- pages --------------------------------------------------------------------------------------------------


def test_neighbouring_plots_share_a_row() -> None:
    plot = Plot("p", "A plot", '<?xml version="1.0"?><svg xmlns="x"><path d="" style="fill: #123456"/></svg>')
    page = html_page("T", [plot, plot, Text("between"), plot], [("#123456", "var(--text)")])
    assert page.count('<div class="plots">') == 2
    assert page.count("fill: var(--text)") == 3
    assert "<?xml" not in page


def test_code_in_a_markdown_table_may_hold_bars_and_backticks() -> None:
    table = Table(("a", "b"), (("x|y*", "p|q`r"), ("", "")), code=frozenset({"b"}))
    assert markdown([Heading("A_b"), table]) == (
        "## A\\_b\n\n| a | b |\n| --- | --- |\n| x\\|y\\* | `` p\\|q`r `` |\n|  |  |\n"
    )


# --- terminal -----------------------------------------------------------------------------------------------


def test_a_summary_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summarise(ROLLOUTS, TASKS, [1, 4]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "3 tasks, 12 rollouts: 8 scored, 3 met a miss, 1 failed"
    assert "1 62.5 % 50.0 – 75.0 62.5 % 50.0 – 75.0 2 1" in lines
    assert "difficulty hard 1 — — 75.0 %" in lines
    assert "ended by: answer 8 (66.7 %), turns 0 (0.0 %), tokens 0 (0.0 %), miss 3 (25.0 %)," in " ".join(
        lines
    )


def test_a_comparison_says_what_differs_and_how_sure_that_is() -> None:
    first = [rollout(f"t{n}", n < 2) for n in range(10)]
    second = [rollout(f"t{n}", n > 1) for n in range(10)]
    found = compare(first, second)
    text = " ".join(compare_text(found, ("base", "[b]tuned")).split())
    assert "base [b]tuned" in text
    assert "success on the 10 shared tasks 20.0 % 80.0 %" in text
    assert "difference +60.0 points, 95 % interval" in text
    assert "p = 0.11 (exact McNemar test, two-sided)" in text
    assert "better on 8 tasks, worse on 2, the same on 0" in text
    table = compare_markdown(found, ("base", "tuned"))
    assert "| success on the 10 shared tasks | 20.0 % | 80.0 % |" in table
    assert "| greatest losses | base | tuned |\n| --- | --: | --: |\n| `t0` | 100.0 % | 0.0 % |" in table


def test_runs_without_a_common_task_are_said_to_have_none() -> None:
    found = compare([rollout("a")], [rollout("b")])
    assert "The runs share no task that both have a scored rollout of." in compare_text(found)


# --- learning curves ----------------------------------------------------------------------------------------


def test_learning_curves_are_drawn_of_whatever_was_logged(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [
        {"step": step, "reward": step / 40, "kl": float("nan"), "custom/$\\frac$": step % 3, "constant": 1.0}
        for step in range(40)
    ]
    rows[10] |= {"held_out/pass@1": 0.3, "held_out/pass@1_low": 0.2, "held_out/pass@1_high": 0.4}
    rows.append({"step": 20, "held_out/pass@1": 0.5, "held_out/pass@1_low": 0.4})
    png, svg = learning_curves(rows, tmp_path / "curves")
    assert (png.name, svg.name) == ("curves.png", "curves.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring(text := svg.read_text(encoding="utf-8"))
    titles = ["Reward", "pass@1 on held-out tasks", "custom/$\\frac$"]
    assert [title for title in titles if f">{title}</text>" in text] == titles
    assert "constant" not in text
    assert "KL" not in text
    assert "_low" not in text


def test_learning_curves_of_nothing_are_an_empty_picture(tmp_path: Path) -> None:
    assert all(path.is_file() for path in learning_curves([], tmp_path / "curves"))


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    assert smoothed([3.0] * 4) == pytest.approx([3.0] * 4)
    assert smoothed([0.0, 3.0]) == pytest.approx([0.0, 1.8])
    assert smoothed([]) == []


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    written(tmp_path)
    assert dict(matplotlib.rcParams) == before
