"""What a config and the registry say of themselves."""

from __future__ import annotations

import dataclasses

import pytest

from ldd_jax import tasks  # noqa: F401  (they register)
from ldd_jax.config import describing, experiment, recipes  # noqa: F401
from ldd_jax.core import registry
from tests.cli import tools

QUICK = f"--config={tools.ROOT / 'configs' / 'quickstart.py'}"


def own():
    for kind in registry.kinds():
        for name in registry.names(kind):
            cls = registry.find(kind, name)
            if registry.origin(cls).startswith(describing.plugins.PACKAGE):
                yield kind, name, cls


def test_every_component_and_every_value_says_what_it_is():
    silent = [f"{kind} {name}" for kind, name, cls in own() if not describing.summary(cls)]
    for kind, name, cls in own():
        for f in dataclasses.fields(cls):
            part = f.metadata.get("runtime") or f.metadata.get("component")
            if not part and not describing.field_line(cls, f.name):
                silent.append(f"{kind} {name} {f.name}")
    assert silent == []


def test_a_config_says_all_its_fields():
    result = tools.good("config", QUICK, "--config.optim.lr=0.25")
    lines = result.out.splitlines()
    named = {line.strip().split(":")[0].split(" = ")[0] for line in lines}
    config = recipes.make({"method": "lddm_m", "size": "tiny"}).to_dict()

    def paths(tree, above):
        for name, value in tree.items():
            if name != "name":
                yield f"{above}{name}"
                if isinstance(value, dict):
                    yield from paths(value, f"{above}{name}.")

    assert named == set(paths(config, "")) and len(lines) == len(named) > 90
    assert "  optim.lr: float = 0.25 (default 0.0003): the highest learning rate." in lines
    assert "seed: int = 0" in lines
    found = next(line for line in lines if "objective.context.gate" in line)
    assert found.startswith("    objective.context.gate = batch: One replicated draw a step")


@pytest.mark.parametrize(
    ("field", "first", "count"),
    [("optim.lr", "  optim.lr: float", 1), ("process.schedule", "  process.schedule = log", 2),
     ("mesh", "mesh = mesh: Devices", 5), ("seed", "seed: int", 1)],
)  # fmt: skip
def test_one_field(field, first, count):
    lines = tools.good("config", QUICK, f"--field={field}").out.splitlines()
    assert lines[0].startswith(first) and len(lines) == count


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("config", QUICK, "--field=optim.lrr"), "no such field; allowed: optim.b1"),
        (("config", QUICK, "--field=optim.lr.x"), "no such field"),
        (("config", QUICK, "--field=optm"), "did you mean 'optim'"),
        (("config",), "--config is missing"),
        (("list", "stepp"), "did you mean 'step'"),
        (("list", "step", "grid"), "takes flags only"),
        (("list", "--plugin=nowhere.py"), "no such file, and no module of that name"),
        (("list", "--plugin="), "--plugin is missing its value"),
        (("lab", "--plugin=nowhere.py"), "unknown flag --plugin"),
    ],
)
def test_refusals(argv, said):
    result = tools.call(*argv)
    assert result.status == 2 and said in result.err and len(result.err.splitlines()) == 1
    assert result.out == ""


def test_lists(tmp_path, own_registry):
    result = tools.good("list")
    heads = [line[:-1] for line in result.out.splitlines() if line[0] != " "]
    assert heads == [*registry.kinds(), "recipe (--config=NAME)"]
    path = tmp_path / "parts.py"
    path.write_text(
        "from ldd_jax.core.registry import register\n@register('toy of this test', 'mine')\n"
        "class Mine:\n    '''A toy. With more to say.'''\n"
    )
    lines = tools.good("list", "toy of this test", f"--plugin={path}").out.splitlines()
    assert lines == ["toy of this test:", "  mine  A toy. (parts.py)"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_config_file_may_use_what_a_plugin_registers(order, tmp_path, own_registry):
    """Wherever the flags stand."""
    path = tmp_path / "parts.py"
    path.write_text(
        "import dataclasses\nfrom ldd_jax.core.registry import register\n"
        "from ldd_jax.config.methods import Method\n@register('method', 'method_of_this_test')\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Mine(Method):\n    '''Mine.'''\n"
    )
    flags = f"{QUICK}:method=method_of_this_test", f"--plugin={path}"
    out = tools.good("config", *(flags[i] for i in order), "--field=recipe").out
    assert "method=method_of_this_test" in out
    del registry._CLASSES["method"]["method_of_this_test"]
    result = tools.call("config", flags[0])
    assert result.status == 2 and "unknown method" in result.err
