"""Code of the user's own: loaded because they named it for this workdir, and for nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

import ldd_jax
from ldd_jax.config import loading, plugins, recipes, stored, trust
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError
from tests.cli import tools

PART = """
import dataclasses, pathlib
from ldd_jax.core.registry import register
from ldd_jax.schedules import LogLinear

pathlib.Path({mark!r}).touch()

@register("schedule", "mine")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(LogLinear):
    "Mine, version {version}."
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch, own_registry):
    """Nothing is registered or noted beyond a test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def part(tmp_path):
    """Writes a plugin; what it leaves tells whether it ran."""

    def write(name="code/parts.py", version=1):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PART.format(mark=str(tmp_path / "ran"), version=version))
        return path

    return write


@pytest.fixture
def ran(tmp_path):
    """Whether a plugin ran since it was last asked."""

    def asked():
        there = (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink(missing_ok=True)
        return there

    return asked


def new_process():
    registry._CLASSES["schedule"].pop("mine", None)
    loading.RAN.clear()


def made(workdir, *given):
    """A workdir as `train` begins it, then the next command."""
    workdir.mkdir(exist_ok=True)
    with plugins.named(map(str, given)):
        config = recipes.make({"method": "mdlm", "size": "tiny"})
        plugins.record(workdir, config)
        stored.save_config(config, workdir)
    new_process()
    return workdir


def opened(workdir, *given):
    with plugins.named(map(str, given)):
        stored.load_config(workdir)


def refused(workdir, *given):
    with pytest.raises(UserError) as caught:
        opened(workdir, *given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_named_file_is_loaded_again_from_the_record(part, ran, tmp_path, capsys):
    path = part()
    workdir = made(tmp_path / "run", path)
    assert ran()
    (one,) = json.loads((workdir / "plugins.json").read_text())["plugins"]
    assert one == {"path": str(path), "sha256": loading.digest(path.read_bytes()), "module": ""}
    opened(workdir)
    assert ran() and "mine" in registry.names("schedule")
    opened(workdir)
    assert not ran()  # once a process
    assert capsys.readouterr() == ("", "")


def test_a_run_without_plugins_has_no_record(tmp_path):
    workdir = made(tmp_path / "run")
    assert [p.name for p in workdir.iterdir()] == ["config.json"]
    assert not (tmp_path / "state").exists()


def test_a_changed_file_is_said_and_loaded(part, ran, tmp_path, capsys):
    workdir = made(tmp_path / "run", part())
    path = part(version=2)
    ran()
    opened(workdir)
    assert ran() and registry.find("schedule", "mine").__doc__ == "Mine, version 2."
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path.name} has changed since {workdir} was made with it" in line


def others_write(path, tmp_path):
    path.chmod(0o666)


def others_write_above(path, tmp_path):
    path.parent.chmod(0o777)


def a_link(path, tmp_path):
    path.rename(tmp_path / "elsewhere.py")
    path.symlink_to(tmp_path / "elsewhere.py")


def in_a_workdir(path, tmp_path):
    (path.parent / "config.json").write_text("{}")


HARMS = (others_write, others_write_above, a_link, in_a_workdir)


@pytest.mark.parametrize("harm", HARMS, ids=lambda f: f.__name__)
def test_what_another_may_have_changed_is_named_again_or_not_run(harm, part, ran, tmp_path):
    path = part()
    workdir = made(tmp_path / "run", path)
    harm(path, tmp_path)
    ran()
    opened(workdir)  # not changed: what is in it was named
    assert ran()
    new_process()
    part(version=2)
    assert f"--plugin={path}" in refused(workdir) and not ran()
    opened(workdir, path)
    assert ran()


def by_another_hand(workdir, place, tmp_path):
    """Its record, and all files, from elsewhere; the file's digest is the right one."""
    shutil.rmtree(tmp_path / "state")


def moved(workdir, place, tmp_path):
    shutil.move(workdir, place)


def in_the_place_of_mine(workdir, place, tmp_path):
    """Unpacked over a run of the user's, with a token of its own."""
    record = json.loads((workdir / "plugins.json").read_text())
    (workdir / "plugins.json").write_text(json.dumps(record | {"token": "0" * 32}))


def without_a_token(workdir, place, tmp_path):
    record = json.loads((workdir / "plugins.json").read_text())
    (workdir / "plugins.json").write_text(json.dumps(record | {"token": ""}))


def others_may_write_what_is_trusted(workdir, place, tmp_path):
    (tmp_path / "state" / "ldd_jax" / "plugins").chmod(0o777)


def what_is_trusted_is_garbage(workdir, place, tmp_path):
    (file,) = (tmp_path / "state" / "ldd_jax" / "plugins").iterdir()
    file.write_text("[]")


def another_entry_in_its_place(workdir, place, tmp_path):
    (file,) = (tmp_path / "state" / "ldd_jax" / "plugins").iterdir()
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"workdir": "/elsewhere"}))


FOREIGN = (
    by_another_hand,
    moved,
    in_the_place_of_mine,
    without_a_token,
    others_may_write_what_is_trusted,
    what_is_trusted_is_garbage,
    another_entry_in_its_place,
)


@pytest.mark.parametrize("how", FOREIGN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("where", ["code/parts.py", "run/parts.py"])
def test_a_foreign_workdir_runs_nothing(how, where, part, ran, tmp_path, capsys):
    path, place = tmp_path / "named.py", tmp_path / "got"
    (tmp_path / "run").mkdir()
    part(where)
    shutil.copy(tmp_path / where, path)
    workdir = tmp_path / "run"
    config = recipes.make({"method": "mdlm", "size": "tiny"})
    with plugins.named([str(tmp_path / where)]):
        plugins.record(workdir, config)
    stored.save_config(config, workdir)
    new_process()
    how(workdir, place, tmp_path)
    ran()
    workdir = place if place.exists() else workdir
    assert "--plugin=FILE" in refused(workdir) and not ran()
    assert "mine" not in registry.names("schedule")
    opened(workdir, path)  # the user's own, and nothing else
    assert ran() and list(loading.RAN) == [str(path)]
    assert len(capsys.readouterr().err.splitlines()) == 1


COMMANDS = (
    ("sample", "--workdir={}"),
    ("evaluate", "--workdir={}"),
    ("mechanism", "--workdir={}"),
    ("report", "--workdir={}"),
    ("play", "--workdir={}"),
    ("bench", "--workdir={}", "--output=out"),
    ("export", "--workdir={}", "--output=out"),
    ("publish", "--workdir={}", "--output=out"),
    ("solve", "--workdir={}", "--problem=1"),
    ("distill", "--workdir={}", "--steps=2", "--output=out.json"),
    ("gen-ppl", "texts", "--workdir={}"),
    ("gen-ppl", "texts", "--judge={}"),
    ("train", f"--config={tools.ROOT}/configs/finetune.py:from={{}}", "--workdir=new"),
    ("train", f"--config={tools.ROOT}/configs/text.py:method=mdlm,size=tiny", "--workdir={}"),
)


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: " ".join(argv)[:16])
def test_no_command_opens_a_foreign_workdir(argv, part, ran, tmp_path, monkeypatch):
    workdir = made(tmp_path / "run", part("run/parts.py"))
    shutil.rmtree(tmp_path / "state")
    ran()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").write_text("one\ntwo\n")
    argv = [word.format(workdir) for word in argv]
    result = tools.call(*argv)
    assert result.status == 2 and "give --plugin=FILE" in result.err, result
    assert len(result.err.splitlines()) == 1 and not ran()
    result = tools.call(*argv, f"--plugin={part('code/parts.py')}")
    assert result.status == 2 and ran()  # it was never trained
    assert "of it only --plugin is loaded" in result.err and "=FILE" not in result.err


def test_from_python(part, ran, tmp_path):
    path = part()
    workdir = made(tmp_path / "run", path)
    shutil.rmtree(tmp_path / "state")
    ran()
    with pytest.raises(UserError, match="give --plugin=FILE"):
        ldd_jax.load(workdir)
    assert not ran()
    for given in ([path], path):
        with pytest.raises(UserError, match="tokenizer"):  # it was never trained
            ldd_jax.load(workdir, plugins=given)
        assert ran()
        new_process()


def test_what_runs_is_what_is_trusted_and_not_what_the_workdir_lists(part, ran, tmp_path):
    workdir = made(tmp_path / "run", part())
    evil = part("code/evil.py")
    record = json.loads((workdir / "plugins.json").read_text())
    record["plugins"][0] |= {"path": str(evil), "sha256": loading.digest(evil.read_bytes())}
    (workdir / "plugins.json").write_text(json.dumps(record))
    opened(workdir)
    assert list(loading.RAN) == [str(tmp_path / "code" / "parts.py")]


def test_what_was_read_is_what_runs(part, ran, tmp_path, monkeypatch):
    """Between the digest and the run nobody can change the file."""
    workdir, path = made(tmp_path / "run", part()), tmp_path / "code" / "parts.py"
    path.parent.chmod(0o777)
    read = loading.contents

    def changes_after(name):
        data = read(name)
        part(version=2)
        return data

    monkeypatch.setattr(loading, "contents", changes_after)
    opened(workdir)
    assert registry.find("schedule", "mine").__doc__ == "Mine, version 1."


def test_a_file_that_has_gone_is_named_where_it_is_now(part, ran, tmp_path):
    path = part()
    workdir = made(tmp_path / "run", path)
    path.rename(tmp_path / "parts.py")
    assert "which is not there; give --plugin=FILE" in refused(workdir)
    opened(workdir, tmp_path / "parts.py")
    assert "mine" in registry.names("schedule")


def test_more_may_be_named_than_was_recorded(part, tmp_path):
    workdir = made(tmp_path / "run", part())
    more = tmp_path / "more.py"
    more.write_text("")
    opened(workdir, more)
    assert sorted(loading.RAN) == [str(tmp_path / "code" / "parts.py"), str(more)]


def test_a_run_goes_on_with_what_is_recorded_and_named(part, ran, tmp_path):
    workdir = made(tmp_path / "run", part())
    token = json.loads((workdir / "plugins.json").read_text())["token"]
    more = tmp_path / "more.py"
    more.write_text("")
    with plugins.named([str(more)]):
        config = stored.load_config(workdir)
        plugins.record(workdir, config)
    record = json.loads((workdir / "plugins.json").read_text())
    assert [p["path"] for p in record["plugins"]] == [str(tmp_path / "code/parts.py"), str(more)]
    assert record["token"] == token
    new_process()
    opened(workdir)
    assert "mine" in registry.names("schedule")


def test_the_users_own_folder_is_theirs_alone(part, tmp_path):
    made(tmp_path / "run", part())
    place = tmp_path / "state" / "ldd_jax" / "plugins"
    (file,) = place.iterdir()
    assert place.stat().st_mode & 0o777 == 0o700 and file.stat().st_mode & 0o777 == 0o600


def test_without_such_a_folder_it_is_said(part, ran, tmp_path, monkeypatch, capsys):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    workdir = made(tmp_path / "run", part())
    (line,) = capsys.readouterr().err.splitlines()
    assert "later commands need --plugin again" in line
    ran()
    refused(workdir)
    assert not ran()


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"token": 1, "plugins": []}', '{"token": "", "plugins": [1]}',
     '{"token": "", "plugins": [{"path": "/x", "sha256": ""}]}',
     '{"token": "", "plugins": [{"path": 1, "sha256": "", "module": ""}]}'],
)  # fmt: skip
def test_records_that_are_none(text, tmp_path):
    workdir = made(tmp_path / "run")
    (workdir / "plugins.json").write_text(text)
    assert "is no record of plugins" in refused(workdir)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n1 / 0", "failed: ZeroDivisionError: division by zero, line 2"),
        ("def f(:", "failed: SyntaxError: invalid syntax"),
        ("\0", "failed: "),
        ("import nowhere_at_all", "failed: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (PART.replace('"mine"', '"cosine"').format(mark="/dev/null", version=1),
         "schedule 'cosine' is registered twice"),
    ],
)  # fmt: skip
def test_plugins_that_fail(text, said, tmp_path):
    path = tmp_path / "parts.py"
    path.write_text(text)
    before = set(sys.modules)
    with pytest.raises(UserError, match=f"the plugin {path} failed") as caught:
        loading.load(str(path))
    assert said in str(caught.value)
    assert not any(name.startswith("plugin_") for name in set(sys.modules) - before)


@pytest.mark.parametrize("given", ["nowhere.py", "no_module", "os.nothing", "sys", "a-b", "", "/"])
def test_what_is_no_plugin(given):
    with pytest.raises(UserError, match="no such file, and no module of that name"):
        loading.load(given)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on Python's path, which tells when it is imported."""
    folder = tmp_path / "site" / "package_of_mine"
    folder.mkdir(parents=True)
    mark = str(tmp_path / "imported")
    (folder / "__init__.py").write_text(f"import pathlib; pathlib.Path({mark!r}).touch()")
    (folder / "parts.py").write_text(PART.format(mark=str(tmp_path / "ran"), version=1))
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    for name in [n for n in sys.modules if n.startswith("package_of_mine")]:
        del sys.modules[name]


def test_a_module_of_a_package(package, ran, tmp_path, monkeypatch):
    workdir = made(tmp_path / "run", "package_of_mine.parts")
    (one,) = json.loads((workdir / "plugins.json").read_text())["plugins"]
    assert one["module"] == "package_of_mine.parts" and one["path"] == str(package / "parts.py")
    for name in ("package_of_mine.parts", "package_of_mine"):
        del sys.modules[name]
    opened(workdir)
    assert "mine" in registry.names("schedule")


def test_a_module_elsewhere_of_the_same_name_is_not_imported(package, tmp_path, monkeypatch):
    """Such as one in the folder that the user stands in."""
    workdir = made(tmp_path / "run", "package_of_mine.parts")
    for name in ("package_of_mine.parts", "package_of_mine"):
        del sys.modules[name]
    other = tmp_path / "other" / "package_of_mine"
    shutil.copytree(package, other)
    (tmp_path / "imported").unlink()
    monkeypatch.syspath_prepend(other.parent)
    assert "which Python does not find there now" in refused(workdir)
    assert not (tmp_path / "imported").exists()


def test_a_module_that_stands_alone_is_its_file(part, tmp_path, monkeypatch):
    path = part("code/alone_of_mine.py")
    monkeypatch.syspath_prepend(path.parent)
    assert loading.load("alone_of_mine") == loading.load(str(path))


def test_a_file_that_is_run_again_registers_again(part, tmp_path):
    first = loading.load(str(part()))
    old = registry.find("schedule", "mine")
    assert loading.load(first.path) == first and registry.find("schedule", "mine") is old
    assert loading.load(str(part(version=2))) != first
    assert registry.find("schedule", "mine").__doc__ == "Mine, version 2."
    with pytest.raises(UserError, match="registered twice"):
        loading.load(str(part("code/other.py")))


def test_what_a_config_file_imports_is_recorded(part, ran, tmp_path, monkeypatch):
    path = part("code/imported_of_mine.py")
    monkeypatch.syspath_prepend(path.parent)
    import imported_of_mine

    config = recipes.make(
        {"method": "mdlm", "size": "tiny"}, process=dict(schedule=imported_of_mine.Mine)
    )
    assert [s.path for s in plugins.used(config)] == [str(path)]
    assert plugins.used(recipes.make({"method": "mdlm", "size": "tiny"})) == []
    workdir = tmp_path / "run"
    workdir.mkdir()
    plugins.record(workdir, config)
    stored.save_config(config, workdir)
    new_process()
    ran()
    opened(workdir)
    assert ran() and "mine" in registry.names("schedule")
    del sys.modules["imported_of_mine"]


def test_only_absolute_homes(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(trust.folder()) == "/home/ada/.local/state/ldd_jax/plugins"
    monkeypatch.setenv("HOME", "nowhere")
    assert trust.folder() is None
    assert trust.recall(os.getcwd(), "token") is None


def test_results_are_told_apart_by_the_code(part, monkeypatch):
    from ldd_jax.config.stored import fingerprint

    with plugins.named([str(part())]):
        process = dict(schedule=registry.find("schedule", "mine"))
    config = recipes.make({"method": "mdlm", "size": "tiny"}, process=process)
    first = fingerprint(config)
    assert fingerprint(config) == first
    with plugins.named([str(part(version=2))]):
        assert fingerprint(config) != first
    code = plugins.digests("process", config.process.to_dict())
    assert code == {"schedule mine": loading.digest(part(version=2).read_bytes())[:16]}
