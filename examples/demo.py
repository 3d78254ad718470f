"""What `make demo` runs: record and explore real MCP servers, delete their files, replay the same calls.

An MCP client talks with each server through `firefly-proxy record`, and `firefly explore` walks them without
a script, along a graph of their tools. Of what they answered then, tasks are made and audited. Two clients at
once repeat every call of the client against `firefly-proxy replay`, and each answer is compared with the
recorded one, `_meta` aside.

    python examples/demo.py            a table
    python examples/demo.py --json     the same as one JSON object
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.context import ClientRequestContext
from mcp.types import CreateMessageRequestParams, CreateMessageResult, PromptReference, TextContent
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
NPM_BIN = ROOT / ".servers" / "node_modules" / ".bin"
FIREFLY = [sys.executable, "-m", "firefly_proxy.cli"]
SWITCHBOARD = [sys.executable, "-m", "firefly_proxy.main"]
CLIENTS = 2
EXPLORED_CALLS, EXPLORED_MINUTES = 80, 0.75
"""What the exploration may take: calls to each server, and time in all."""
SHOWN_EDGES = 8
TASKS, SHOWN_TASKS = 60, 3
LIMIT_S = 180
"""Far more than the whole demo takes; a server that hangs must not hang the demo."""
FOLDER_HOLDS = {
    "servers.log",
    "world",
    "mcp.json",
    "graph.html",
    "tasks",
    *(
        f"{name}.db{kind}{log}"
        for name in ("recording", "explored")
        for kind in ("", ".replay.db")
        for log in ("", "-shm", "-wal")
    ),
}
"""All that a run leaves in its folder, and so all that the next run may delete."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a walk, in the protocol's own words."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Walk:
    """A server and what is asked of it, in order."""

    server: str
    command: Sequence[str]
    steps: Sequence[Step]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the result or the error, without the `_meta` in which a replay names its source."""

    body: Mapping[str, Any]
    missed: bool
    text: str
    """The first text of a tool's result, for people."""


def call(tool: str, **arguments: object) -> Step:
    return Step("tools/call", {"name": tool, "arguments": arguments})


def time_walk() -> Walk:
    tokyo = {"source_timezone": "Europe/Paris", "target_timezone": "Asia/Tokyo"}
    return Walk(
        "time",
        [sys.executable, "-m", "mcp_server_time", "--local-timezone=UTC"],
        [
            Step("tools/list"),
            call("get_current_time", timezone="UTC"),
            call("get_current_time", timezone="Asia/Tokyo"),
            call("get_current_time", timezone="UTC"),
            call("convert_time", time="09:30", **tokyo),
            call("convert_time", time="23:30", **tokyo),
            call("convert_time", time="12:00", source_timezone="UTC", target_timezone="Asia/Kathmandu"),
            call("convert_time", time="25:99", **tokyo),
            call("get_current_time", timezone="Atlantis/Poseidonis"),
            call("get_current_time"),
            call("set_time", time="12:00"),
        ],
    )


def git_walk(repository: Path) -> Walk:
    """Make a repository with some history and one changed file, and say what to do with it."""
    repository.mkdir(parents=True)
    notes = repository / "notes.txt"

    def git(*command: str, **more: str) -> None:
        subprocess.run(["git", *command], cwd=repository, env=environment(more), check=True)

    git("init", "--quiet", "--initial-branch=main")
    git("config", "user.name", "Demo")
    git("config", "user.email", "demo@example.org")
    git("config", "commit.gpgsign", "false")
    for day, (author, subject) in enumerate(COMMITS, 1):
        with notes.open("a", encoding="utf-8") as file:
            file.write(f"{subject.lower()}\n" * day)
        when = f"2025-03-{2 * day + 1:02}T{8 + day:02}:15:00+00:00"
        git("add", "notes.txt")
        who = f"--author={author} <{author.lower()}@example.org>"
        git("commit", "--quiet", who, f"--message={subject}", GIT_AUTHOR_DATE=when, GIT_COMMITTER_DATE=when)
    git("branch", "greenhouse", "HEAD~2")
    with notes.open("a", encoding="utf-8") as file:
        file.write("two\n")
    here = {"repo_path": str(repository)}
    return Walk(
        "git",
        [sys.executable, "-m", "mcp_server_git", "--repository", str(repository)],
        [
            Step("tools/list"),
            call("git_status", **here),
            call("git_diff_unstaged", **here),
            call("git_log", **here),
            call("git_add", **here, files=["notes.txt"]),
            call("git_status", **here),
            call("git_diff_staged", **here),
            call("git_commit", **here, message="Second note"),
            call("git_status", **here),
            call("git_log", **here),
            call("git_log", **here, max_count=1),
            call("git_show", **here, revision="HEAD"),
            call("git_create_branch", **here, branch_name="draft"),
            call("git_branch", **here, branch_type="local"),
            call("git_checkout", **here, branch_name="draft"),
            call("git_branch", **here, branch_type="local"),
            call("git_diff", **here, target="main"),
            call("git_checkout", **here, branch_name="nowhere"),
            call("git_log", repo_path=str(repository.parent)),
            call("git_add", **here, files=[]),
        ],
    )


COMMITS = (
    ("Ada", "First note"),
    ("Ben", "Sow carrots"),
    ("Ada", "Prune the roses"),
    ("Cleo", "Order seeds"),
    ("Ben", "Repair the fence"),
    ("Ada", "Harvest beans"),
)


def filesystem_walk(folder: Path) -> Walk:
    for name, size in (
        ("beds/north.txt", 310),
        ("beds/south.txt", 145),
        ("beds/east.md", 72),
        ("beds/west.csv", 508),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(("beans, carrots and leeks; " * 30)[:size], encoding="utf-8")
    for name, lines in (("logs/march.log", 9), ("logs/april.log", 14), ("logs/may.txt", 5)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("watered\n" * lines, encoding="utf-8")
    (folder / "readme.md").write_text("# Garden\n\nTomatoes and basil.\n", encoding="utf-8")
    (folder / "dot.png").write_bytes(bytes.fromhex("89504e470d0a1a0a"))
    readme, plan, here = str(folder / "readme.md"), str(folder / "plan.txt"), str(folder)
    return Walk(
        "filesystem",
        [str(NPM_BIN / "mcp-server-filesystem"), here],
        [
            Step("tools/list"),
            call("list_allowed_directories"),
            call("list_directory", path=here),
            call("read_text_file", path=readme),
            call("read_text_file", path=readme, head=1),
            call("read_text_file", path=plan),
            call("write_file", path=plan, content="water on Monday\n"),
            call("read_text_file", path=plan),
            call("edit_file", path=plan, edits=[{"oldText": "Monday", "newText": "Friday — früh"}]),
            call("read_text_file", path=plan),
            call("list_directory", path=here),
            call("create_directory", path=str(folder / "old")),
            call("move_file", source=plan, destination=str(folder / "old" / "plan.txt")),
            call("read_text_file", path=plan),
            call("directory_tree", path=here),
            call("search_files", path=here, pattern="**/*.txt"),
            call("read_multiple_files", paths=[readme, str(folder / "old" / "plan.txt")]),
            call("read_media_file", path=str(folder / "dot.png")),
            call("get_file_info", path=readme),
            call("read_text_file", path="/etc/hostname"),
            call("write_file", path=plan),
        ],
    )


KNOWN = (
    ("Mirela", "gardener", ("waters the north bed", "starts at seven"), "tends", "North bed"),
    ("Jonas", "gardener", ("builds fences",), "works with", "Mirela"),
    ("North bed", "bed", ("beans", "carrots", "leeks"), "part of", "Garden"),
    ("Garden", "place", ("open until dusk",), "owned by", "Town"),
    ("Town", "organization", ("pays for the seeds", "meets in May"), "employs", "Jonas"),
)
"""What the memory server knows at first: name, kind, observations, and a relation to another one."""


def memory_walk(file: Path) -> Walk:
    with file.open("w", encoding="utf-8") as lines:
        for name, kind, told, relation, other in KNOWN:
            entity = {"type": "entity", "name": name, "entityType": kind, "observations": list(told)}
            between = {"type": "relation", "from": name, "to": other, "relationType": relation}
            lines.write(f"{json.dumps(entity)}\n{json.dumps(between)}\n")
    ada = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    engine = {"name": "Engine", "entityType": "machine", "observations": []}
    works_on = {"from": "Ada", "to": "Engine", "relationType": "works on"}
    return Walk(
        "memory",
        [str(NPM_BIN / "mcp-server-memory")],
        [
            Step("tools/list"),
            Step("resources/list"),
            call("read_graph"),
            call("create_entities", entities=[ada, engine]),
            call("read_graph"),
            call("create_relations", relations=[works_on]),
            call("read_graph"),
            call("search_nodes", query="programs"),
            call("open_nodes", names=["Ada"]),
            call("add_observations", observations=[{"entityName": "Ada", "contents": ["likes birds"]}]),
            call("open_nodes", names=["Ada"]),
            call("add_observations", observations=[{"entityName": "Bob", "contents": ["unknown"]}]),
            call("delete_relations", relations=[works_on]),
            call("delete_entities", entityNames=["Engine"]),
            call("read_graph"),
            call("search_nodes", query="engine"),
            Step("resources/read", {"uri": "memory://knowledge-graph"}),
            call("create_entities", entities="Ada"),
        ],
        {"MEMORY_FILE_PATH": str(file)},
    )


def everything_walk() -> Walk:
    prompt = {"type": "ref/prompt", "name": "completable-prompt"}
    return Walk(
        "everything",
        [str(NPM_BIN / "mcp-server-everything")],
        [
            Step("tools/list"),
            Step("resources/list"),
            Step("resources/templates/list"),
            Step("prompts/list"),
            call("echo", message="hello"),
            call("echo", message="grüße 🌍"),
            call("get-sum", a=2, b=40),
            call("get-sum", a="two", b=40),
            call("get-structured-content", location="Chicago"),
            call("get-annotated-message", messageType="error", includeImage=True),
            call("get-tiny-image"),
            call("get-resource-links", count=2),
            call("get-resource-reference", resourceType="Text", resourceId=1),
            call("trigger-long-running-operation", duration=0.4, steps=2),
            call("trigger-sampling-request", prompt="Say hello", maxTokens=20),
            Step("resources/read", {"uri": "demo://resource/static/document/features.md"}),
            Step("resources/read", {"uri": "demo://resource/static/document/nothing.md"}),
            Step("prompts/get", {"name": "simple-prompt"}),
            Step("prompts/get", {"name": "args-prompt", "arguments": {"city": "Oslo"}}),
            Step("prompts/get", {"name": "args-prompt", "arguments": {}}),
            Step("completion/complete", {"ref": prompt, "argument": {"name": "department", "value": "E"}}),
            Step("completion/complete", {"ref": prompt, "argument": {"name": "department", "value": ""}}),
        ],
    )


def walks(world: Path) -> list[Walk]:
    """Make the servers' files under `world`, and return the walks of the servers that are installed."""
    found = [time_walk(), git_walk(world / "repository")]
    if npm_servers_run():
        found += [filesystem_walk(world / "files"), memory_walk(world / "memory.jsonl"), everything_walk()]
    return found


def npm_servers_run() -> bool:
    return NPM_BIN.is_dir() and shutil.which("node") is not None


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, less what a Git hook sets to turn every git command to its own repository; and `more`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**ours, **(more or {})}


@asynccontextmanager
async def connected(command: Sequence[str], env: Mapping[str, str], log: Path) -> AsyncIterator[Client]:
    """A client of the server that `command` starts; what comes on its standard error goes to `log`."""
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env=environment(env))
    with log.open("a", encoding="utf-8") as errors:
        async with Client(stdio_client(server, errlog=errors), sampling_callback=say_hello) as client:
            yield client


async def say_hello(context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
    """Be the model when a server asks the client for one."""
    return CreateMessageResult(role="assistant", content=TextContent(text="Hello!"), model="demo")


async def ask(client: Client, step: Step) -> Answer:
    params = dict(step.params)
    try:
        result: Any
        match step.method:
            case "tools/call":
                result = await client.call_tool(params["name"], params["arguments"])
            case "tools/list":
                result = await client.list_tools()
            case "resources/list":
                result = await client.list_resources()
            case "resources/templates/list":
                result = await client.list_resource_templates()
            case "resources/read":
                result = await client.read_resource(params["uri"])
            case "prompts/list":
                result = await client.list_prompts()
            case "prompts/get":
                result = await client.get_prompt(params["name"], params.get("arguments"))
            case "completion/complete":
                prompt = PromptReference(name=params["ref"]["name"])
                result = await client.complete(prompt, params["argument"])
            case _:
                raise ValueError(f"the demo has no step {step.method}")
    except MCPError as error:
        refusal = error.error.model_dump(mode="json", by_alias=True, exclude={"_meta"})
        missed = isinstance(error.data, dict) and error.data.get("reason") == "not_recorded"
        return Answer(refusal, missed, text=error.message)
    replayed = (result.meta or {}).get("io.firefly/replay")
    texts = [block.text for block in getattr(result, "content", ()) if block.type == "text"]
    body = result.model_dump(mode="json", by_alias=True, exclude={"meta"})
    return Answer(body, missed=replayed is not None and replayed["tier"] is None, text="\n".join(texts))


async def record(walk: Walk, recording: Path, log: Path) -> list[Answer]:
    """Ask the real server, through the recorder."""
    proxy = [*FIREFLY, "record", "--db", str(recording), "--name", walk.server, "--", *walk.command]
    async with connected(proxy, walk.env, log) as client:
        return [await ask(client, step) for step in walk.steps]


async def replay(walk: Walk, recording: Path, log: Path) -> list[list[Answer]]:
    """Ask the recording the same, from several clients at once."""
    proxy = [*FIREFLY, "replay", "--db", str(recording), "--server", walk.server]
    answers: list[list[Answer]] = [[] for _ in range(CLIENTS)]

    async def one_client(number: int) -> None:
        async with connected(proxy, {}, log) as client:
            answers[number] = [await ask(client, step) for step in walk.steps]

    async with anyio.create_task_group() as clients:
        for number in range(CLIENTS):
            clients.start_soon(one_client, number)
    return answers


async def explore(chosen: Sequence[Walk], folder: Path, log: Path) -> dict[str, Any]:
    """Explore the servers as they are now, and draw the graph of their tools.

    Returns:
        `coverage`, what `firefly explore` reports, and `edges`, those seen to flow most often.
    """
    servers = {
        walk.server: {"command": walk.command[0], "args": list(walk.command[1:]), "env": dict(walk.env)}
        for walk in chosen
    }
    config, recording = folder / "mcp.json", folder / "explored.db"
    config.write_text(json.dumps({"mcpServers": servers}, indent=2), encoding="utf-8")
    here = ["--db", str(recording), "--json"]
    limits = ["--calls-per-server", str(EXPLORED_CALLS), "--minutes", str(EXPLORED_MINUTES)]
    asked = ["explore", "--config", str(config), *limits, *here]
    coverage = await output_of([*SWITCHBOARD, *asked], log)
    graph = await output_of([*SWITCHBOARD, "graph", "--html", str(folder / "graph.html"), *here], log)
    flows = [edge for edge in graph["edges"] if edge["seen"] and edge["producer"] != edge["consumer"]]
    flows.sort(key=lambda edge: -edge["seen"])
    return {"coverage": coverage, "graph": str(folder / "graph.html"), "edges": flows[:SHOWN_EDGES]}


async def synthesise(recording: Path, out: Path, log: Path) -> dict[str, Any]:
    """Make tasks of what was explored, and audit them.

    Returns:
        `made`, what `firefly synth` reports; `held`, whether `firefly synth check` found nothing; `tasks`, a
        few of them; and the `seconds` that making them took.
    """
    started = time.monotonic()
    here = ["--db", str(recording), "--json"]
    made = await output_of([*SWITCHBOARD, "synth", "--out", str(out), "--count", str(TASKS), *here], log)
    seconds = round(time.monotonic() - started, 1)
    audit = await output_of([*SWITCHBOARD, "synth", "check", str(out), *here], log)
    tasks = [json.loads(line) for line in (out / "tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    # Of each way in which calls hang together one, those that cross servers first.
    tasks.sort(key=lambda task: (-len(task["servers"]), -len(task["calls"]), len(task["question"])))
    patterns = {task["template"].partition(":")[0]: task for task in reversed(tasks)}
    shown_tasks = [task for task in tasks if task in patterns.values()][:SHOWN_TASKS]
    return {"made": made, "held": audit["ok"], "tasks": shown_tasks, "seconds": seconds}


async def output_of(command: Sequence[str], log: Path) -> dict[str, Any]:
    """Run a command of ours and return the object that it prints."""
    with log.open("a", encoding="utf-8") as errors:
        ended = await anyio.run_process(command, stderr=errors, env=environment())
    return dict(json.loads(ended.stdout))


def compare(walk: Walk, recorded: Sequence[Answer], replayed: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Count a server's answers: `identical` and `missed` are out of `calls` times the number of clients."""
    count: Counter[str] = Counter()
    different: list[dict[str, Any]] = []
    for answers in replayed:
        for step, first, again in zip(walk.steps, recorded, answers, strict=True):
            if again.missed:
                count["missed"] += 1
            elif again.body == first.body:
                count["identical"] += 1
            else:
                request = {"method": step.method, "params": step.params}
                different.append({"request": request, "recorded": first.body, "replayed": again.body})
    return {
        "server": walk.server,
        "calls": len(walk.steps),
        "asked_again": len(walk.steps) * len(replayed),
        "identical": count["identical"],
        "missed": count["missed"],
        "different": different,
    }


async def run(folder: Path) -> dict[str, Any]:
    """Record and replay every installed server in a fresh `folder`, and return what happened.

    Raises:
        TimeoutError: it was not done after `LIMIT_S`.
    """
    started = time.monotonic()
    recording, log, world = folder / "recording.db", folder / "servers.log", folder / "world"
    chosen = walks(world)
    with anyio.fail_after(LIMIT_S):
        recorded = [await record(walk, recording, log) for walk in chosen]
        explored = await explore(chosen, folder, log)
        tasks = await synthesise(folder / "explored.db", folder / "tasks", log)
        # The servers have stopped, and their files go too: from here on there is only the recording.
        shutil.rmtree(world)
        replayed = [await replay(walk, recording, log) for walk in chosen]
        proxy = [*FIREFLY, "replay", "--db", str(recording), "--server", "time"]
        async with connected(proxy, {}, log) as client:
            miss = await ask(client, call("get_current_time", timezone="Asia/Seoul"))
    servers = [compare(*both) for both in zip(chosen, recorded, replayed, strict=True)]
    return {
        "recording": str(recording),
        "clients": CLIENTS,
        "servers": servers,
        "identical": all(server["identical"] == server["asked_again"] for server in servers),
        "miss": miss.text,
        "explored": explored,
        "synthesised": tasks,
        "seconds": round(time.monotonic() - started, 1),
    }


def emptied(folder: Path) -> Path:
    """Return the folder without what an earlier run left in it.

    Raises:
        ValueError: it holds something else as well, so it is not ours to clear.
    """
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in FOLDER_HOLDS)
    if foreign:
        raise ValueError(f"{folder} holds {foreign[0]}, which the demo did not make; name an empty folder")
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def print_report(report: Mapping[str, Any], console: Console) -> None:
    table = Table(title=f"Recorded, servers stopped, then asked again by {CLIENTS} clients at once")
    table.add_column("server")
    for column in ("calls recorded", "replayed identically", "missed", "different"):
        table.add_column(column, justify="right")
    for server in report["servers"]:
        identical = f"{server['identical']} of {server['asked_again']}"
        table.add_row(
            server["server"],
            str(server["calls"]),
            identical,
            str(server["missed"]),
            str(len(server["different"])),
        )
    console.print(table)
    if not npm_servers_run():
        console.print("With node and npm installed, make demo also runs three npm servers.")
    plain = {"markup": False, "highlight": False, "soft_wrap": True}
    print_explored(report["explored"], console)
    print_tasks(report["synthesised"], console)
    console.print("\nA call that was never recorded is a miss, and the model is told so:\n", **plain)
    console.print("\n".join(f"    {line}" for line in report["miss"].splitlines()), **plain)
    command = f"{shown(Path(sys.executable).with_name('firefly-proxy'))}"
    recording = shown(Path(report["recording"]))
    console.print(f"\nThe recording is {recording} ({report['seconds']} s). Type next:\n", **plain)
    console.print(f"    {command} show --db {recording}", **plain)
    console.print(f"    {command} replay --db {recording} --server time", **plain)
    console.print(f"    {command} record --db my.db -- YOUR SERVER'S COMMAND", **plain)
    firefly = shown(Path(sys.executable).with_name("firefly"))
    console.print(f"    {firefly} explore --config YOUR mcp.json --db my.db", **plain)
    console.print(f"    {firefly} synth --db my.db --out my-tasks", **plain)


def print_explored(explored: Mapping[str, Any], console: Console) -> None:
    coverage = explored["coverage"]
    table = Table(title=f"Explored without a script, in {coverage['seconds']:.0f} s")
    table.add_column("server")
    for column in ("calls", "effective", "tools reached"):
        table.add_column(column, justify="right")
    for server in coverage["servers"]:
        rate = server["effective_rate"]
        reached = f"{server['reached']} of {len(server['tools'])}"
        table.add_row(
            server["server"], str(server["calls"]), "" if rate is None else f"{100 * rate:.0f} %", reached
        )
    console.print(table)
    plain = {"markup": False, "highlight": False, "soft_wrap": True}
    console.print("\nThe graph of tools: values that were seen to flow most often\n", **plain)
    for edge in explored["edges"]:
        producer, consumer = ("/".join(edge[end].values()) for end in ("producer", "consumer"))
        flow = f"{producer} {edge['output']} → {consumer} {edge['parameter']}"
        console.print(f"    {flow} ({edge['seen']} times)", **plain)
    counts = ", ".join(f"{count} {evidence}" for evidence, count in coverage["edges"].items() if count)
    console.print(f"\nAll of it ({counts}) is drawn in {shown(Path(explored['graph']))}", **plain)


def print_tasks(report: Mapping[str, Any], console: Console) -> None:
    plain = {"markup": False, "highlight": False, "soft_wrap": True}
    figures = report["made"]["figures"]
    held = "Each was" if report["held"] else "NOT each was"
    console.print(
        f"\n{figures['tasks']} tasks were made backward from it in {report['seconds']:.0f} s:"
        f" {100 * figures['multi_call']:.0f} % take several calls,"
        f" {100 * figures['across_servers']:.0f} % cross servers."
        f" {held} derived anew by firefly synth check. Three of them:",
        **plain,
    )
    for task in report["tasks"]:
        console.print(f"\n    {task['question']}", **plain)
        for call in task["calls"]:
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            console.print(f"      {call['server']}/{call['tool']} {arguments}", **plain)
        console.print(f"    → {json.dumps(task['answer'], ensure_ascii=False)}", **plain)


def shown(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="made, and emptied, by every run")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    try:
        folder = emptied(options.folder.resolve())
    except ValueError as error:
        parser.error(str(error))
    try:
        report = anyio.run(run, folder)
    except Exception as error:  # whatever it was: it goes on up, and says where to look
        error.add_note(f"What the servers and the proxy printed is in {folder / 'servers.log'}.")
        raise
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print_report(report, Console())
    sys.exit(not (report["identical"] and report["synthesised"]["held"]))


if __name__ == "__main__":
    main()
