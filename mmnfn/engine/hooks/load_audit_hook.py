"""A hook that says which weights were loaded, and stops where a backbone did not get all of them."""

from __future__ import annotations

from typing import Iterator, List, Mapping, Optional, Tuple

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import find_latest_checkpoint
from torch import nn

from mmnfn.registry import HOOKS

from ..annotation_check import check_labels
from ..checkpoint_file import Checkpoint, local_copy, read_checkpoint
from ..config_nodes import literal_config
from ..load_audit import LoadAudit, LoadAuditError, audit_load
from ..run_config import check_controls


def pretrained_modules(model: nn.Module) -> Iterator[Tuple[str, nn.Module, Mapping]]:
    """Name, module and ``init_cfg`` of every module that a checkpoint initialises."""
    for name, module in model.named_modules():
        init_cfgs = getattr(module, 'init_cfg', None) or []
        for init_cfg in init_cfgs if isinstance(init_cfgs, (list, tuple)) else [init_cfgs]:
            if isinstance(init_cfg, Mapping) and init_cfg.get('type') == 'Pretrained':
                yield name or 'model', module, init_cfg


@HOOKS.register_module()
class LoadAuditHook(Hook):
    """Compare the model with the checkpoints it was loaded from, and stop if a backbone is not wholly theirs.

    - ``init_cfg=dict(type='Pretrained', …)``: before the library's loader opens the file, the hook reads it without
      running anything in it, and compares keys and shapes; after loading it compares values. A table goes to the log.
      Anything short of every weight ends the run, but for norms of stages that pretraining did not use.
    - ``load_from`` in training: the same for the model's backbone; other parts may differ.
    - the checkpoint of a test or validation: the same for the whole model; the classes that it was trained on have to
      be those of the dataset, in the same order. In a test, the data must be arranged as in the training that its
      metadata tell of, and metrics with a method ``note_training`` get these metadata.
    - ``resume``: the file is only looked at before it is opened.

    Args:
        stop: Whether an incomplete load ends the run; otherwise it is a warning in the log.

    Raises:
        LoadAuditError: In the methods that mmengine calls, where a file cannot be read, would run code, or did not load
            wholly.
    """

    priority = 'VERY_HIGH'

    def __init__(self, stop: bool = True):
        self.stop = stop

    def before_run(self, runner) -> None:
        """Look at the files before anything opens them."""
        path = runner._load_from
        if runner._resume and not path:
            path = find_latest_checkpoint(runner.work_dir)
        if path:
            self._read(path, 'checkpoint')
        if isinstance(runner._train_loop, BaseLoop):  # the loop of the mode that runs has been built by now
            for name, module, init_cfg in pretrained_modules(_model(runner)):
                checkpoint = self._read(init_cfg['checkpoint'], f'model.{name}.init_cfg.checkpoint')
                if checkpoint is not None:
                    audit = audit_load(name, module, checkpoint, init_cfg.get('prefix'), loaded=False)
                    if audit.problem:
                        self._report(runner, [audit])

    def before_train(self, runner) -> None:
        """Compare values, after weights were initialised and ``load_from`` was loaded."""
        if runner._has_loaded and runner._resume:
            return
        model = _model(runner)
        if runner._has_loaded:
            model = _loaded_model(runner)
            loads = [('model', model, dict(checkpoint=runner._load_from))]
            if hasattr(model, 'backbone'):
                # in a module of its own, as MMEngine loaded it: by the keys of the model, not by the backbone's loader
                loads = [('backbone', nn.ModuleDict(dict(backbone=model.backbone)), loads[0][2])]
        else:
            loads = list(pretrained_modules(model))
        self._audit(runner, loads)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Look at what the checkpoint of a test says of its training."""
        if not isinstance(runner._test_loop, BaseLoop):
            return
        meta = checkpoint.get('meta') or {}
        trained = literal_config(str(meta.get('cfg')))
        if runner.cfg.get('train_dataloader') and trained.get('train_dataloader'):
            try:
                check_controls(runner.cfg, ('test_dataloader',), trained)
            except ValueError as error:
                raise LoadAuditError(f'{runner._load_from}: {error}') from error
        for metric in getattr(runner._test_loop.evaluator, 'metrics', []):
            if hasattr(metric, 'note_training'):
                metric.note_training(meta)

    def before_val(self, runner) -> None:
        """As before a test, where validation is all that is done."""
        if not isinstance(runner._train_loop, BaseLoop):
            self.before_test(runner)

    def before_test(self, runner) -> None:
        """Compare the whole model with its checkpoint, and the classes of both."""
        if runner._has_loaded:
            loops = [loop for loop in (runner._test_loop, runner._val_loop) if isinstance(loop, BaseLoop)]
            loads = [('model', _loaded_model(runner), dict(checkpoint=runner._load_from))]
            self._audit(runner, loads, loops[0].dataloader.dataset if loops else None)

    def _audit(self, runner, loads, dataset=None) -> None:
        audits: List[LoadAudit] = []
        for name, module, init_cfg in loads:
            checkpoint = self._read(init_cfg['checkpoint'], name)
            if checkpoint is None:
                runner.logger.warning(f'{init_cfg["checkpoint"]} is not a local file: what it loaded is not audited.')
            else:
                audits.append(audit_load(name, module, checkpoint, init_cfg.get('prefix')))
                trained = (checkpoint.meta.get('dataset_meta') or {}).get('classes')
                tested = getattr(dataset, 'metainfo', {}).get('classes')
                # with return_classes the classes are words for the model, not labels
                if trained and tested and not getattr(dataset, 'return_classes', False):
                    try:
                        check_labels(f'{checkpoint.path}, which was trained on them,', trained, 'the dataset', tested)
                    except ValueError as error:
                        raise LoadAuditError(str(error)) from error
        self._report(runner, audits)

    @staticmethod
    def _read(path: str, argument: str) -> Optional[Checkpoint]:
        try:
            path = local_copy(path)
            return None if path is None else read_checkpoint(path, argument).refuse_foreign(argument)
        except (FileNotFoundError, ValueError) as error:
            raise LoadAuditError(str(error)) from error

    def _report(self, runner, audits: List[LoadAudit]) -> None:
        """Print the tables, and raise the first problem."""
        for audit in audits:
            if is_main_process():
                runner.logger.info(f'Load audit\n{audit.table()}')
                if audit.problem and not self.stop:
                    runner.logger.warning(audit.problem)
        problem = next((audit.problem for audit in audits if audit.problem), None)
        if problem and self.stop:
            raise LoadAuditError(problem)


def _loaded_model(runner) -> nn.Module:
    """What a checkpoint's ``state_dict`` was loaded into: with an EMAHook that of the averaged weights, for it swaps
    them before each test and, in MMPretrain, has the others in the model until then."""
    averaged = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
    return averaged[0] if averaged else _model(runner)


def _model(runner) -> nn.Module:
    """The model inside DDP and test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
