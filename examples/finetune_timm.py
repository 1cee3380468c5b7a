"""Fix the classifier of a timm model, set d = K, and fine-tune it on CIFAR-10 or a folder of images.

python examples/finetune_timm.py --dataset cifar10 --pretrained
python examples/finetune_timm.py --dataset imagefolder:PATH --model mobilenetv3_small_050 --epochs 5

CIFAR-10 and timm's weights are downloaded once. The second command needs no network.
"""

import argparse

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from neuralcollapse import fix_classifier, measure, parameter_savings, set_feature_dim
from neuralcollapse.extras import missing
from neuralcollapse.train.datasets import eval_loader, load_images, train_loader

try:
    import timm
except ImportError:
    raise SystemExit(str(missing("timm's models", "hf"))) from None


def main() -> None:
    """Convert, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10", help="as neuralcollapse train --dataset names it")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--model", default="resnet18", help="a timm model")
    parser.add_argument("--pretrained", action="store_true", help="download timm's weights")
    parser.add_argument("--samples-per-class", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=None)
    options = parser.parse_args()

    torch.manual_seed(0)
    try:
        data = load_images(
            options.dataset,
            options.data_root,
            samples_per_class=options.samples_per_class,
            test_samples_per_class=options.samples_per_class,
            image_size=options.image_size,
        )
    except OSError as error:
        raise SystemExit(f"{error}. Without a network, use images of your own: --dataset imagefolder:PATH") from None
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    mean, std = (moments[:, None, None] for moments in data.channel_moments())

    def batches(loader: DataLoader) -> list:
        return [((pixels.float() / 255 - mean) / std, labels) for pixels, labels in loader]

    classes = len(data.classes)
    try:
        model = timm.create_model(options.model, pretrained=options.pretrained, num_classes=classes)
    except OSError:
        raise SystemExit(
            f"the weights of {options.model} could not be downloaded: --pretrained needs a network once. "
            "Without it, training starts from random weights"
        ) from None
    print(parameter_savings(model))
    model = set_feature_dim(fix_classifier(model), classes).to(device)  # the conversion, before the optimizer

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    loader = train_loader(data.train, 64, seed=0)
    for epoch in range(options.epochs):
        loader.sampler.set_epoch(epoch)
        model.train()
        for images, labels in batches(loader):
            loss = cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: last loss {loss.item():.4f}")
    print(measure(model, batches(eval_loader(data.train)), device=device))
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(images.to(device)).argmax(1).cpu() == labels).sum())
            for images, labels in batches(eval_loader(data.test))
        )
    print(f"test accuracy {right / len(data.test):.2%}")


if __name__ == "__main__":
    main()
