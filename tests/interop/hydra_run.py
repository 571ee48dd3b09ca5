"""A run of Hydra and Lightning as the references have it, on random weights.

    python -m tests.interop.hydra_run hydra.run.dir=FOLDER [algo.name=...]

Writes FOLDER/checkpoints/last.ckpt: the config is the one Hydra composed and resolved, the file the
one that Lightning's own callback saves.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import lightning
import omegaconf
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.interop.test_reference import rotary, weights


class Named(torch.nn.Module):
    """Parameters (and buffers) under dotted names."""

    def __init__(self, arrays):
        super().__init__()
        for name, array in arrays.items():
            *folders, last = name.split(".")
            node = self
            for folder in folders:
                if folder not in node._modules:
                    node.add_module(folder, torch.nn.Module())
                node = node._modules[folder]
            tensor = torch.from_numpy(array.copy())
            if last == "inv_freq":
                node.register_buffer(last, tensor)
            else:
                node.register_parameter(last, torch.nn.Parameter(tensor))


class Diffusion(lightning.LightningModule):
    """Keeps its config, trains, and stores a bare list of averages."""

    def __init__(self, config, tokenizer):
        super().__init__()
        self.save_hyperparameters()
        self.config = config
        self.backbone = Named(weights(loop=False) | {"rotary_emb.inv_freq": rotary(6)})

    def training_step(self, batch, index):
        del index
        return sum((p**2).mean() for p in self.backbone.parameters()) + 0 * batch[0].mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.config.optim.lr)
        warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))
        return [optimizer], [{"scheduler": warm, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint):
        shadow = [p.detach() * 2 for p in self.backbone.parameters()]
        checkpoint["ema"] = {"decay": 0.9999, "num_updates": 3, "shadow_params": shadow}
        checkpoint["sampler"] = {"random_state": {"epoch": 0, "counter": 7}}


omegaconf.OmegaConf.register_new_resolver("eval", eval)
omegaconf.OmegaConf.register_new_resolver("div_up", lambda x, y: (x + y - 1) // y)


@hydra.main(version_base=None, config_path="hydra_configs", config_name="config")
def main(config):
    """Train two steps and save."""
    lightning.seed_everything(config.seed)
    omegaconf.OmegaConf.to_container(config, resolve=True)  # fills the cache of ${now:}
    tokenizer = torch.nn.Identity()
    folder = Path.cwd() / "checkpoints"
    saver = ModelCheckpoint(dirpath=folder, save_last=True, every_n_train_steps=1)
    trainer = hydra.utils.instantiate(
        config.trainer,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(Path.cwd()),
    )
    data = torch.utils.data.TensorDataset(torch.zeros(4, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=config.loader.batch_size)
    trainer.fit(Diffusion(config, tokenizer), loader)


if __name__ == "__main__":
    main()
