"""What more than one test file needs: how Firefly is started, and where the real servers are."""

import shutil
import sys
from pathlib import Path

import pytest

NPM_BIN = Path(__file__).parents[1] / ".servers" / "node_modules" / ".bin"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def firefly() -> list[str]:
    """The `firefly-proxy` command, whatever is on the PATH."""
    return [sys.executable, "-m", "firefly_proxy.cli"]


@pytest.fixture(scope="session")
def time_server() -> list[str]:
    return [sys.executable, "-m", "mcp_server_time", "--local-timezone=UTC"]


@pytest.fixture(scope="session")
def git_server() -> list[str]:
    """Append `--repository` and the path of a repository."""
    return [sys.executable, "-m", "mcp_server_git"]


@pytest.fixture(scope="session")
def filesystem_server() -> list[str]:
    """Append the folders that it may touch."""
    return npm_server("mcp-server-filesystem")


@pytest.fixture(scope="session")
def memory_server() -> list[str]:
    """It keeps its graph in the file that MEMORY_FILE_PATH names."""
    return npm_server("mcp-server-memory")


@pytest.fixture(scope="session")
def everything() -> list[str]:
    return npm_server("mcp-server-everything")


def npm_server(command: str) -> list[str]:
    """Return the argv of a server that make installed; without node and npm, skip the test that needs it."""
    missing = [tool for tool in ("node", "npm") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{command} needs {missing[0]}, which is not installed")
    installed = NPM_BIN / command
    assert installed.exists(), f"{installed} is not there: run make test, which installs it"
    return [str(installed)]
