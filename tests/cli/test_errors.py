"""Every error is one sentence on one line, with options as they were typed, and an exit code that is documented."""

from __future__ import annotations

import pytest

USAGE = [
    ("trian", "unknown command 'trian' (did you mean train?)"),
    ("xyzzy", "unknown command 'xyzzy' (choose train, measure, "),
    ("ufm solv", "unknown command 'solv' (did you mean solve?)"),
    ("ufm xyzzy", "unknown command 'xyzzy' (choose solve, certify, "),
    ("train --epoch 3", "unknown option --epoch (did you mean --epochs?)"),
    ("train --sample-per-class 3", "unknown option --sample-per-class (did you mean --samples-per-class?)"),
    ("train --xyzzy", "unknown option --xyzzy"),
    ("measure --layer 3", "unknown option --layer (did you mean --layers?)"),
    ("ufm solve --lambda_v 3", "unknown option --lambda_v (did you mean --lambda-"),
    ("reproduce figure3 --scal smoke", "unknown option --scal (did you mean --scale?)"),
    ("train --epochs x", "--epochs x: give a whole number"),
    ("train --epochs 1.5", "--epochs 1.5: give a whole number"),
    ("train --lr fast", "--lr fast: give a number"),
    ("train --resume=perhaps", "--resume perhaps: give true or false"),
    ("train --optimizer adm", "--optimizer adm: did you mean adam? Choose sgd, adam, lbfgs"),
    ("train --optimizer lion", "--optimizer lion: choose sgd, adam, lbfgs"),
    ("measure --run r --split tst", "--split tst: did you mean test? Choose train, test, all"),
    ("train --loggers csv", "--loggers csv: choose tensorboard, wandb"),
    ("report r --format pdf", "--format pdf: choose svg, png"),
    ("completion bsh", "SHELL bsh: did you mean bash? Choose bash, zsh, fish"),
    ("--xyzzy", "unknown option --xyzzy"),
    ("--verison", "unknown option --verison (did you mean --version?)"),
    ("train --epochs", "--epochs needs a value"),
    ("train digits", "unexpected word 'digits'"),
    ("train --epochs 3 --epochs 4", "--epochs is given twice"),
    ("savings", "MODEL is required: torchvision's name (resnet50), mlp, "),
    ("report", "RUNS is required: run folders, made by neuralcollapse train, "),
    ("reproduce", "FIGURES is required: what to repeat: figure3, "),
    ("ufm certify", "POINT is required: file of the point, "),
    ("ufm thresholds", "--counts is required: the number of samples of each class, such as 500,50,5"),
    ("ufm target --lambda-w 0.1", "--counts is required: the number of samples of each class, such as 500,50,5"),
    ("ufm target --counts a,b", "--counts a,b: give whole numbers such as 500,50,5"),
    ("ufm solve --samples-per-class many", "--samples-per-class many: give whole numbers such as 5, or 9,1,4,2"),
    ("measure", "give one of --run, --features and --model: nothing says what to measure"),
    ("measure --model mlp", "--model needs --data"),
    ("train --config absent.yaml", "--config absent.yaml: there is no such file"),
]

FAILURES = [
    ("train --dataset letters", "unknown dataset 'letters': choose digits, mnist"),
    ("train --dataset mnits", "unknown dataset 'mnits': did you mean mnist?"),
    ("train --dataset hf:", "unknown dataset 'hf:': choose digits"),
    ("train --model resnet19", "unknown model 'resnet19': did you mean resnet18?"),
    ("train --model densenet121", "unknown model 'densenet121': did you mean torchvision:densenet121?"),
    ("train --model torchvision:resnet19", "torchvision has no model 'resnet19'; close names: resnet18"),
    ("train --model timm:resnet19", "timm has no model 'resnet19'; close names: resnet18"),
    ("train --model file.py:make", "unknown model 'file.py:make'"),
    ("train --epochs 0", "--epochs=0 must be at least 1"),
    ("train --batch-size 0", "--batch-size=0 must be at least 1"),
    ("train --lr -1", "--learning-rate=-1.0 must be positive and finite"),
    ("train --lr nan", "--learning-rate=nan must be positive and finite"),
    ("train --weight_decay inf", "--weight-decay=inf must be finite and at least 0"),
    ("train --weight-decay=-1", "--weight-decay=-1.0 must be finite and at least 0"),
    ("train --samples-per-class 0", "--samples-per-class=0 must be at least 1"),
    ("train --stem small", "--stem='small' is for model resnet18 or resnet50, not mlp"),
    ("train --optimizer lbfgs --devices 2", "--optimizer='lbfgs' runs on --devices=1, --nodes=1"),
    ("train --seed -1", "--seed=-1 must lie in"),
    ("measure --run r --model mlp", "give one of --run, --features and --model, not run and model"),
    ("measure --model mlp --data mnits", "unknown dataset 'mnits': did you mean mnist?"),
    ("measure --model mpl --data digits", "unknown model 'mpl': did you mean mlp?"),
    ("measure --model absent.py:make --data digits", "no file absent.py"),
    ("measure --run r --std 1 --data digits", "--data, --std: --run would ignore that"),
    ("measure --features f.npz --split test", "--split: --features would ignore that"),
    ("measure --features f.npz --layers 1", "--layers: --features would ignore that"),
    ("report absent", "no metrics.csv in absent: is it a run folder?"),
    ("savings resnet51", "torchvision has no model 'resnet51'; close names: resnet"),
    ("savings resnet18 --classes 1", "--classes=1 must be at least 2"),
    ("savings nowhere.py:make", "no file nowhere.py"),
    ("reproduce figur3", "figure 'figur3' is unknown: choose figure3, "),
    ("reproduce figure3 --mnist hff:x", "unknown dataset 'hff:x': did you mean hf"),
    ("ufm solve --lambda-w 0", "--lambda-w=0.0 must be positive"),
    ("ufm solve --num-classes 1", "--num-classes=1 must be at least 2"),
    ("ufm solve --method magic", "--method='magic' is unknown"),
]


LATE = [
    ("train --model torchvision:vit_b_16", "model 'torchvision:vit_b_16' does not take 1x8x8 images"),
    ("train --accelerator abacus", "abacus"),
    ("train --lr 1e30", "the training diverged in epoch 1: its loss is nan. Lower the learn"),
    ("measure --run absent", "no configuration at absent/config.yaml"),
    ("measure --features absent.npz", "--features absent.npz: there is no such file"),
    ("measure --model mlp --data digits --checkpoint x.pt", "no checkpoint at x.pt"),
    ("measure --model mlp --data digits --checkpoint-key ema", "--checkpoint-key ema needs --checkpoint"),
    ("measure --run absent --checkpoint-key ema", "--checkpoint-key: --run would ignore that"),
    ("savings resnet18 --classes 10 --feature-dim 5", "--feature-dim=5 cannot hold"),
    ("ufm landscape --saddle 9+9", "--saddle 9+9: choose one of 4, 3+1"),
    ("ufm landscape --lambda-w 5 --lambda-h 5", "no strict saddle"),
    ("ufm landscape --num-classes 400", "choose fewer classes or features"),
    ("ufm certify absent.npz", "no file of tensors at absent.npz"),
]
"""What only the work itself can find out."""


@pytest.mark.parametrize(("line", "message"), USAGE)
def test_what_is_not_understood(call, line: str, message: str) -> None:
    check(call(*line.split()), 2, message)


@pytest.mark.parametrize(("line", "message"), FAILURES)
def test_what_is_refused(call, line: str, message: str) -> None:
    check(call(*line.split()), 1, message)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("line", "message"), LATE)
def test_what_fails_later(call, line: str, message: str) -> None:
    ended = call(*line.split())
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith("neuralcollapse: error: ")
    assert message in last
    assert "Traceback" not in ended.err


def check(ended, code: int, message: str) -> None:
    assert message in ended.err
    assert ended.code == code
    assert ended.err.startswith("neuralcollapse: error: ")
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    for jargon in ("Literal", "Union", "NoneType", "<class", "Traceback", "usage:", " int", "Optional"):
        assert jargon not in ended.err


def test_no_command_shows_the_commands(call) -> None:
    for words in ((), ("ufm",)):
        ended = call(*words)
        assert ended.code == 2
        assert "Commands:" in ended.out
        assert ended.err == "neuralcollapse: error: give a command\n"


def test_messages_of_the_library_name_the_flag(call) -> None:
    import numpy as np

    np.savez("hole.npz", features=np.random.default_rng(0).normal(size=(6, 4)), labels=np.array([0, 0, 0, 2, 2, 2]))
    ended = call("measure", "--features", "hole.npz")
    assert ended.code == 1
    assert "--allow-missing" in ended.err
    assert "allow_missing" not in ended.err


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("feature_dim=5 is too small", "--feature-dim=5 is too small"),
        ("pass random_labels=True or learning_rate=0.1", "pass --random-labels or --learning-rate=0.1"),
        ("augment=False", "--no-augment"),
        ("model: there is none", "--model: there is none"),
        ("samples_per_class is larger than the data", "--samples-per-class is larger than the data"),
        ("test_samples_per_class=3", "--test-samples-per-class=3"),
        ("config.momentum=3, my_momentum=3, momentum is lost", "config.momentum=3, my_momentum=3, momentum is lost"),
        ("column 'learning_rate' of run/learning_rate.csv", "column 'learning_rate' of run/learning_rate.csv"),
    ],
)
def test_words_of_the_library_become_options(message: str, typed: str) -> None:
    from neuralcollapse.cli.app import build_app
    from neuralcollapse.cli.errors import as_typed

    assert as_typed(message, build_app()["train"]) == typed


def test_an_error_that_nobody_expected_keeps_its_notes() -> None:
    from neuralcollapse.cli.app import build_app
    from neuralcollapse.cli.errors import failure

    error = RuntimeError("shapes cannot be multiplied")
    error.add_note("while measuring batch 3 (Tensor (8, 4))")
    said = failure(error, build_app())
    assert said.startswith("RuntimeError: shapes cannot be multiplied, while measuring batch 3 (Tensor (8, 4)) (NEURAL")
