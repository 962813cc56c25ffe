"""The commands on a disk and on S3: what they do, their JSON, their exit codes, and what they never show."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import atomicpath
from atomicpath._profile import probing
from atomicpath.cli import cleaning, screen
from atomicpath.cli.app import app
from atomicpath.cli.exits import ExitCode
from tests.cleaning.leftovers import killed
from tests.cli import page
from tests.support.roots import SECRET, Root

SCHEMA = page.schema(page.PAGE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def run(*arguments: object) -> Ended:
    result = CliRunner().invoke(app, [str(one) for one in arguments], prog_name="atomicpath")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert SECRET not in result.stdout + result.stderr
    assert "\x1b" not in result.stdout
    return Ended(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class Shell:
    """The program with the options of a place; what it prints as JSON has to be what the page says."""

    place: Root
    file: Path

    def __call__(self, command: str, *arguments: object) -> Ended:
        return run(command, *arguments, "--options-file", self.file)

    def json(self, command: str, *arguments: object, code: int = 0) -> Any:
        ended = self(command, *arguments, "--json")
        assert ended.code == code, ended.err
        assert ended.out.count("\n") == 1
        assert list(page.conforms(ended.document, command, SCHEMA)) == []
        return ended.document

    def url(self, name: str) -> str:
        return f"{self.place.url}/{name}"


@pytest.fixture
def shell(place: Root, tmp_path: Path) -> Shell:
    (tmp_path / "options.json").write_text(json.dumps(dict(place.storage_options)))
    return Shell(place, tmp_path / "options.json")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "sub").mkdir(parents=True)
    (tmp_path / "source" / "a").write_text("one")
    (tmp_path / "source" / "sub" / "b").write_text("three")
    return tmp_path / "source"


BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)
ON_A_DISK = pytest.mark.parametrize("place", ["local"], indirect=True)


def test_every_command_has_its_json_on_the_page() -> None:
    names = {command.name for command in app.registered_commands}
    assert names <= SCHEMA.keys()


@BOTH
def test_a_directory_is_put_read_copied_back_and_removed(shell: Shell, source: Path, tmp_path: Path) -> None:
    made = shell.json("put", source, shell.url("step_1"), "--checksums", "-m", "loss=0.5", "-m", "note=hi")
    assert (made["name"], made["step"], made["file_count"], made["bytes"]) == ("step_1", 1, 2, 8)
    assert made["metadata"] == {"loss": 0.5, "note": "hi"}
    assert shell.json("ls", shell.place.url)["commits"] == [made]
    assert shell.json("latest", shell.place.url) == made
    assert shell("latest", shell.place.url).out == f"{made['url']}\n"
    shown = shell.json("show", shell.url("step_1"))
    assert [file["name"] for file in shown["files"]] == ["a", "sub/b"]
    assert shell.json("verify", shell.url("step_1"), "--checksums")["ok"] is True
    assert shell.json("get", shell.url("step_1"), tmp_path / "got")["local_dir"] == str(tmp_path / "got")
    assert (tmp_path / "got" / "sub" / "b").read_text() == "three"
    assert shell.json("rm", shell.url("step_1"), "--dry-run")["items"][0]["done"] is False
    assert shell.json("rm", shell.url("step_1"))["items"][0]["done"] is True
    assert shell.place.read_all() == {}


@BOTH
def test_what_differs_from_the_manifest_is_named(shell: Shell, source: Path) -> None:
    shell("put", source, shell.url("step_1"))
    shell.place.delete("step_1/a")
    shell.place.write("step_1/more", b"x")
    found = shell.json("verify", shell.url("step_1"), code=ExitCode.DAMAGED)
    assert (found["missing"], found["altered"], found["extra"]) == (["a"], [], ["more"])
    ended = shell("verify", shell.url("step_1"))
    assert [line.split() for line in ended.out.splitlines()[1:]] == [["missing", "a"], ["extra", "more"]]


@BOTH
def test_the_newest_are_kept_and_a_dry_run_removes_nothing(shell: Shell, source: Path) -> None:
    for step in (1, 2, 3):
        shell("put", source, shell.url(f"step_{step}"))
    before = shell.place.read_all()
    planned = shell.json("keep", shell.place.url, "-n", "1", "--dry-run", "--protect", "step_1")
    assert [item["action"] for item in planned["items"]] == ["keep", "remove", "keep"]
    assert not any(item["done"] for item in planned["items"])
    assert all(item["reason"] for item in planned["items"])
    assert shell.place.read_all() == before
    done = shell.json("keep", shell.place.url, "-n", "1", "--protect", "step_1")
    assert [item["done"] for item in done["items"]] == [False, True, False]
    assert shell.place.names() == ["step_1", "step_3"]


@BOTH
def test_what_a_killed_process_left_is_listed_and_swept(shell: Shell) -> None:
    killed(shell.place, "step_1")
    listed = shell.json("ls", shell.place.url, "--all")
    assert [(one["final"], one["alive"]) for one in listed["unfinished"]] == [(shell.url("step_1"), False)]
    assert "atomicpath sweep" in shell("ls", shell.place.url, "--all").err
    planned = shell.json("sweep", shell.place.url, "--older-than", "0s", "--dry-run")
    assert {(item["action"], item["done"]) for item in planned["items"]} == {("remove", False)}
    assert shell.place.read_all()
    assert {item["done"] for item in shell.json("sweep", shell.place.url, "--older-than", "0s")["items"]} == {True}
    assert shell.place.read_all() == {}


@BOTH
def test_doctor_and_bench_measure_and_leave_nothing(shell: Shell) -> None:
    found = shell.json("doctor", shell.url("step_1"))
    assert [check["check"] for check in found["checks"]] == [
        *("software", "guarantees", "list", "write", "read", "delete", "cost"),
    ]
    if shell.place.kind == "s3":
        assert found["commit_requests"] == 5  # the four of docs/costs.md, and the file
    else:
        assert found["commit_calls"] > 20
    measured = shell.json("bench", shell.place.url, "--size", "10k", "--files", "3", "--repeat", "1")
    assert [row["operation"] for row in measured["rows"]] == ["plain copy there", "put", "plain copy back", "get"]
    assert shell.place.read_all() == {}


@ON_A_DISK
def test_doctor_says_what_fails_and_leaves_the_rest_out(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = shell("doctor", tmp_path / "file" / "step_1", "--json")
    assert ended.code not in (0, 1)
    assert list(page.conforms(ended.document, "doctor", SCHEMA)) == []
    assert ended.document["ok"] is False
    assert [check["check"] for check in ended.document["checks"] if not check["ok"]]


@BOTH
def test_explain_shows_the_evidence_and_the_strategy(shell: Shell) -> None:
    found = shell.json("explain", shell.url("step_1"))
    assert found["strategy"] in ("AtomicRenameTemporaryPath", "CommitFileTemporaryPath")
    assert {one["name"] for one in found["guarantees"]} == set(atomicpath.Guarantee.__members__)
    assert found["strategy"] in shell("explain", shell.url("step_1")).out


@pytest.mark.parametrize("place", ["moto"], indirect=True)
def test_where_nothing_is_known_to_be_safe_no_strategy_is_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shell.json("explain", "memory://run/step_1", "--no-probe")
    assert found["strategy"] == "CommitFileTemporaryPath"
    monkeypatch.setattr(probing, "_known", {})
    found = shell.json("explain", shell.url("step_1"), "--no-probe", code=ExitCode.NO_GUARANTEE)
    assert found["strategy"] is None
    assert {one["status"] for one in found["guarantees"] if one["name"] == "EXCLUSIVE_CREATE"} == {"unknown"}


@BOTH
def test_a_name_that_is_taken_is_refused_and_the_next_command_named(shell: Shell, source: Path, tmp_path: Path) -> None:
    shell("put", source, shell.url("step_1"))
    ended = shell("put", source, shell.url("step_1"))
    assert (ended.code, ended.out) == (ExitCode.EXISTS, "")
    assert f"next: atomicpath show {shell.url('step_1')}" in ended.err
    assert shell("put", source, shell.url("step_1"), "--quiet").err.count("\n") == 1
    (tmp_path / "taken").mkdir()
    ended = shell("get", shell.url("step_1"), tmp_path / "taken")
    assert ended.code == ExitCode.CONFLICT
    assert f"next: atomicpath ls --all {tmp_path}" in ended.err
    shell.place.write("foreign/file", b"x")
    assert shell("put", source, shell.url("foreign")).code == ExitCode.CONFLICT


@BOTH
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "{root}/step_9"), ExitCode.NOT_COMMITTED, "not a committed directory"),
        (("get", "{root}/step_9", "{tmp}/got"), ExitCode.NOT_COMMITTED, "not a committed directory"),
        (("verify", "{root}/step_9"), ExitCode.NOT_COMMITTED, "not a committed directory"),
        (("rm", "{root}/step_9"), ExitCode.NOT_COMMITTED, "not a committed directory"),
        (("latest", "{root}"), ExitCode.NOT_COMMITTED, "nothing is committed"),
        (("keep", "{root}", "-n", "0"), ExitCode.USAGE, "not 0"),
        (("keep", "{root}"), ExitCode.USAGE, "rule"),
        (("keep", "{root}", "--every", "soon"), ExitCode.USAGE, "duration"),
        (("sweep", "{root}", "--older-than", "1y"), ExitCode.USAGE, "duration"),
        (("ls", "{root}", "--step", "("), ExitCode.USAGE, "regular expression"),
        (("ls", "unknown://host/run"), ExitCode.SETUP, "no backend serves"),
        (("ls", "s3:/bucket/run"), ExitCode.USAGE, "s3://bucket/run"),
        (("ls", f"s3://key:{SECRET}@bucket/run"), ExitCode.USAGE, "password"),
        (("ls", "{root}", "--no-such"), ExitCode.USAGE, "--no-such"),
        (("put", "{tmp}/nowhere", "{root}/step_1"), ExitCode.USAGE, "nowhere"),
        (("explain", "{root}/step_1", "--guarantee", "LUCK"), ExitCode.USAGE, "LUCK"),
        (("bench", "{root}", "--size", "1T"), ExitCode.USAGE, "--size"),
        (("bench", "{root}", "--repeat", "0"), ExitCode.USAGE, "--repeat"),
    ],
    ids=lambda value: " ".join(value).replace(SECRET, "…") if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_and_has_its_exit_code(
    shell: Shell, tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, says: str
) -> None:
    ended = shell(*(one.format(root=shell.place.url, tmp=tmp_path) for one in arguments))
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", [("ls",), ("latest",), ("sweep",), ("keep", "-n", "1")], ids=lambda one: one[0])
def test_a_root_that_is_not_there_is_no_empty_one(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = run(*command, tmp_path / "nowhere")
    assert (ended.code, ended.out) == (ExitCode.NOT_COMMITTED, "")
    assert "nowhere" in ended.err
    (tmp_path / "nowhere").mkdir()
    assert run(*command, tmp_path / "nowhere").code == (ExitCode.NOT_COMMITTED if command == ("latest",) else 0)


OPTIONS_THAT_ARE_WRONG = [
    (("-o", SECRET), {}, {}),
    (("-o", "secret=", SECRET), {}, {}),
    (("-o", f"sekret={SECRET}"), {}, {}),
    ((), {"options.json": f'{{"secret": "{SECRET}'}, {}),
    ((), {"options.toml": f"secret = {SECRET}"}, {}),
    ((), {"options.toml": f'secret = "{SECRET}"\nsecret = "{SECRET}"'}, {}),
    ((), {"options.ini": f"secret = {SECRET}"}, {}),
    ((), {"options.json": f'["{SECRET}"]'}, {}),
    ((), {}, {"ATOMICPATH_STORAGE_OPTIONS": f'{{"secret": {SECRET}}}'}),
    ((), {}, {"ATOMICPATH_STORAGE_OPTIONS": f'"{SECRET}"'}),
]


@pytest.mark.parametrize(("arguments", "files", "variables"), OPTIONS_THAT_ARE_WRONG, ids=range(10))
@pytest.mark.parametrize("command", [("ls",), ("doctor", "--json")], ids=lambda one: one[0])
def test_options_that_cannot_be_used_are_refused_without_showing_them(
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    files: dict[str, str],
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        arguments = ("--options-file", str(tmp_path / name))
    assert run(*command, "s3://bucket/run", *arguments).code == ExitCode.USAGE


def test_options_of_the_line_win_over_the_file_and_the_file_over_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(atomicpath, "committed", lambda root, **options: seen.append(options["storage_options"]) or [])
    monkeypatch.setenv("ATOMICPATH_STORAGE_OPTIONS", '{"a": 1, "b": 1, "c": 1}')
    (tmp_path / "options.toml").write_text("b = 2\nc = 2\n[client]\nregion = 'eu'")
    run("ls", tmp_path, "--options-file", tmp_path / "options.toml", "-o", "c=[3]", "-o", "d=x=y", "-o", 'e=""')
    assert seen == [{"a": 1, "b": 2, "c": [3], "client": {"region": "eu"}, "d": "x=y", "e": ""}]


@ON_A_DISK
@pytest.mark.parametrize("command", ["rm", "keep"])
@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_on_a_terminal_a_deletion_asks_first(
    shell: Shell, source: Path, command: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        shell("put", source, shell.url(f"step_{step}"))
    for module in (screen, cleaning):
        monkeypatch.setattr(module, "is_interactive", lambda: True)
    arguments = (shell.url("step_1"),) if command == "rm" else (shell.place.url, "-n", "1")
    result = CliRunner().invoke(app, [command, *arguments], input=f"{answer}\n" if answer else "")
    assert "step_1" in result.stderr
    assert result.exit_code == (0 if answer == "y" else ExitCode.FAILED)
    assert shell.place.names() == (["step_2"] if answer == "y" else ["step_1", "step_2"])


@ON_A_DISK
def test_of_several_that_are_removed_one_that_fails_does_not_stop_the_others(shell: Shell, source: Path) -> None:
    shell("put", source, shell.url("step_2"))
    ended = shell("rm", shell.url("step_1"), shell.url("step_2"), "--json")
    assert ended.code == ExitCode.NOT_COMMITTED
    assert [(item["done"], item["error"] is None) for item in ended.document["items"]] == [(False, False), (True, True)]
    assert list(page.conforms(ended.document, "rm", SCHEMA)) == []
    assert shell.place.names() == []


@BOTH
def test_a_committed_directory_taken_for_a_root_is_told(shell: Shell, source: Path) -> None:
    shell("put", source, shell.url("step_1"))
    for command in ("ls", "latest"):
        assert f"next: atomicpath show {shell.url('step_1')}" in shell(command, shell.url("step_1")).err


@BOTH
def test_an_alias_is_followed_and_its_target_stays(shell: Shell, source: Path, tmp_path: Path) -> None:
    for step in (1, 2):
        shell("put", source, shell.url(f"step_{step}"), "-m", f"step={step}")
    assert shell.json("alias", shell.url("best"), "step_1") == {"url": shell.url("best"), "target": "step_1"}
    assert shell.json("show", shell.url("best"))["metadata"] == {"step": 1}
    assert shell("get", shell.url("best"), tmp_path / "got").code == 0
    assert [one["done"] for one in shell.json("keep", shell.place.url, "-n", "1")["items"]] == [False, False]
    assert shell("rm", shell.url("step_1")).code != 0
    assert shell("alias", shell.url("best"), "step_9").code == ExitCode.NOT_COMMITTED


@BOTH
def test_a_copy_takes_the_options_of_each_side(shell: Shell, source: Path, tmp_path: Path) -> None:
    shell("put", source, shell.url("step_1"), "-m", "loss=0.5")
    made = shell.json("copy", shell.url("step_1"), shell.url("copied/step_1"))
    assert made["metadata"] == {"loss": 0.5}
    here = run("copy", shell.url("step_1"), tmp_path / "here", "--source-options-file", shell.file)
    assert (here.code, (tmp_path / "here" / "a").read_text()) == (0, "one"), here.err
    there = shell("copy", tmp_path / "here", shell.url("back/step_1"))
    assert there.code == 0, there.err
    ended = shell("copy", shell.url("step_9"), shell.url("step_1"))
    assert ended.code == ExitCode.NOT_COMMITTED
    assert f"next: atomicpath ls --all {shell.place.url}" in ended.err
    ended = shell("copy", shell.url("step_1"), shell.url("copied/step_1"))
    assert ended.code == ExitCode.EXISTS
    assert f"next: atomicpath show {shell.url('copied/step_1')}" in ended.err


@BOTH
def test_new_directories_are_watched_for(shell: Shell, source: Path) -> None:
    for step in (1, 2):
        shell("put", source, shell.url(f"step_{step}"))
    ended = shell("watch", shell.place.url, "--after", "1", "--count", "1", "--json")
    assert ended.code == 0, ended.err
    assert list(page.conforms(ended.document, "watch", SCHEMA)) == []
    assert ended.document["name"] == "step_2"
    assert len(shell("watch", shell.place.url, "--timeout", "0s").out.splitlines()) == 2
    ended = shell("watch", shell.place.url, "--after", "2", "--timeout", "0s")
    assert (ended.code, ended.out) == (ExitCode.NOT_COMMITTED, "")


@BOTH
def test_the_newest_is_fetched_once(shell: Shell, source: Path, tmp_path: Path) -> None:
    ended = shell("get", "--latest", shell.place.url, tmp_path / "scratch")
    assert (ended.code, ended.out) == (ExitCode.NOT_COMMITTED, "")
    shell("put", source, shell.url("step_1"))
    for _ in range(2):
        fetched = shell.json("get", "--latest", shell.place.url, tmp_path / "scratch")
        assert fetched["local_dir"] == str(tmp_path / "scratch" / "step_1")


@BOTH
def test_what_is_there_is_kept_on_request(shell: Shell, source: Path) -> None:
    made = shell.json("put", source, shell.url("step_1"))
    assert shell.json("put", source, shell.url("step_1"), "--exists", "keep") == made


@ON_A_DISK
def test_names_cannot_write_to_the_terminal(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    for name in (b"red\x1b[31m", b"two\nlines", b"no\xfftext"):
        Path(os.fsdecode(os.fsencode(tmp_path / "odd") + b"/" + name)).write_text("x")
    assert shell("put", tmp_path / "odd", shell.url("[bold]step\x1b[31m")).code == 0
    lines = shell("ls", shell.place.url).out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("[bold]step\\x1b[31m")
    shown = shell("show", "--files", shell.url("[bold]step\x1b[31m")).out
    assert "red\\x1b[31m" in shown
    assert "two\\nlines" in shown
    assert shell.json("show", shell.url("[bold]step\x1b[31m"))["file_count"] == 3


@ON_A_DISK
def test_what_another_tool_committed_is_shown_without_a_record(shell: Shell) -> None:
    shell.place.write("step_1/commit_success.txt", b"")
    shell.place.write("step_1/data", b"x")
    assert shell.json("ls", shell.place.url)["commits"][0]["writer"] is None
    assert shell.json("show", shell.url("step_1"))["files"] is None
    assert shell("show", shell.url("step_1")).code == 0
    assert shell("verify", shell.url("step_1")).code == ExitCode.DAMAGED
