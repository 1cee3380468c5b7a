"""A user's file is imported as python itself would import it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from neuralcollapse.cli.models import user_model

FILES = {
    "a dataclass with deferred annotations": (
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from torch import nn\n"
        "@dataclasses.dataclass\n"
        "class Sizes:\n"
        "    width: int = 7\n"
        "def build():\n"
        "    return nn.Linear(4, Sizes().width)\n"
    ),
    "annotations that are looked up": (
        "from __future__ import annotations\n"
        "import typing\n"
        "from torch import nn\n"
        "class Sizes(typing.NamedTuple):\n"
        "    width: int = 7\n"
        "assert typing.get_type_hints(Sizes) == {'width': int}\n"
        "def build():\n"
        "    return nn.Linear(4, Sizes().width)\n"
    ),
    "a pickle of its own class": (
        "import pickle\n"
        "from torch import nn\n"
        "class Own(nn.Linear): pass\n"
        "def build():\n"
        "    return pickle.loads(pickle.dumps(Own(4, 7)))\n"
    ),
    "a neighbour": "import neighbour_of_models as near\ndef build():\n    return near.make()\n",
    "a neighbour when it is built": "def build():\n    from neighbour_of_models import make\n    return make()\n",
    "a name that is taken": "import json\nfrom torch import nn\ndef build():\n    return nn.Linear(4, 7)\n",
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("where", ["whole", "relative"])
def test_a_file_of_the_user(kind: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("neighbour_of_models", "file_of_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "neighbour_of_models.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(4, 7)\n")
    name = "json.py" if "taken" in kind else "file_of_models.py"
    (tmp_path / name).write_text(FILES[kind])
    monkeypatch.chdir(tmp_path.parent if where == "relative" else tmp_path)
    path = list(sys.path)
    model = user_model(Path(tmp_path.name) / name if where == "relative" else tmp_path / name, "build")
    assert isinstance(model, nn.Linear)
    assert model.out_features == 7
    assert sys.path == path
    assert hasattr(sys.modules["json"], "dumps")


def test_a_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken_model.py").write_text("import there_is_no_such_module\n")
    with pytest.raises(ValueError, match=r"broken_model\.py failed when imported: ModuleNotFoundError: No module"):
        user_model(tmp_path / "broken_model.py", "build")
    assert "broken_model" not in sys.modules
    assert str(tmp_path) not in sys.path
