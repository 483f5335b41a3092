"""Early stopping that a resumed run remembers."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class StopEarly(EarlyStopping):
    """Lightning's early stopping, which stays stopped in a run that is resumed."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once where the restored state had stopped already."""
        if self.stopped_epoch:
            trainer.should_stop = True
