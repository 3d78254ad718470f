import pytest

from recorder.verbs import suggested


@pytest.mark.parametrize(
    ("tool", "changes"),
    [
        ("read_file", False),
        ("configure_file_watcher", True),
        ("refresh_index", True),
        ("file_head", None),
        ("options_for", None),
        ("bash FILE", False),
        ("execute_sql HEAD", False),
        ("get_file_options", False),
    ],
)
def test_nouns_that_are_commands_too_say_nothing_in_a_name(tool: str, changes: bool | None) -> None:
    assert suggested(tool) is changes
