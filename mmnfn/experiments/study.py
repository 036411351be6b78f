"""From a study's YAML file to its jobs: pretrain, transfer and test, for every row and seed."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import yaml
from mmengine.config import Config

from mmnfn.utils import atomic_write

EMBEDDINGS = 'embeddings.pkl'
"""In the folder of a pretraining: embeddings of the test images and their partners."""
RECORD = 'job.json'
LAST_CHECKPOINT = re.compile(r'^(load_from=|)\{last_checkpoint:(.+)\}$')
"""An argument of a job's commands: the checkpoint that ``FOLDER/last_checkpoint`` names when the command starts."""

# What each part of a file can hold. A part that trains nothing has neither processes nor, without a config, options.
_PARTS: Dict[str, Dict[str, Any]] = {
    'study': dict(name=str, work_dir=str, seeds=list, processes=int, backbones=dict, tables=list, slurm=dict),
    'backbone': dict(pretrain=dict, transfer=dict),
    'config': dict(config=str, options=dict, processes=int, transfer=list),
    'random': dict(random=str, options=dict, transfer=list),
    'checkpoint': dict(checkpoint=str, transfer=list),
    'baseline': dict(baseline=str, options=dict, transfer=list),
    'transfer': dict(config=str, options=dict, processes=int, train=bool, load_from=bool, dump=bool),
    'test alone': dict(config=str, options=dict, train=bool, dump=bool),
    'table': dict(title=str, columns=dict, rows=list, references=list, paper=dict),
    'column': dict(task=str, metric=str, scale=(int, float), digits=int),
}
_REQUIRED = {
    'study': ('name', 'work_dir', 'seeds', 'backbones'),
    'backbone': ('pretrain',),
    'transfer': ('config',),
    'table': ('title', 'columns'),
    'column': ('task', 'metric'),
}
_TYPES = {str: 'a text', int: 'a whole number', bool: 'true or false', list: 'a list', dict: 'a mapping'}


class Job(NamedTuple):
    """Describe a step of a study.

    Attributes:
        name: Unique in the study, e.g. ``'swin-micro/nfn/seed0/detect'``.
        folder: Where it works and keeps its record and its log.
        commands: Run one after another; see :data:`LAST_CHECKPOINT`.
        needs: Names of jobs that must be done before.
        outputs: Files that are there when it is done.
        labels: ``backbone``, ``row``, ``seed`` and ``task``.
        processes: Number of processes that it starts.
        config: Its config.
        settings: :func:`config_text` of the config when the study was read.
        fingerprint: Changes when commands or settings do, its own or those of a job that it needs.
    """

    name: str
    folder: Path
    commands: Tuple[Tuple[str, ...], ...]
    needs: Tuple[str, ...]
    outputs: Tuple[Path, ...]
    labels: Dict[str, str]
    processes: int
    config: Path
    settings: str
    fingerprint: str

    def record(self) -> Optional[Dict[str, Any]]:
        """Read what is known of its last start; None if it never started.

        Returns:
            ``fingerprint`` and ``commands``; ``status`` (``'running'``, ``'done'`` or ``'failed'``); ``started`` (UTC);
            ``seconds`` of each command that ended; ``host``; ``revision`` of the code; ``message``, why it failed.
        """
        path = self.folder / RECORD
        return read_json(path) if path.is_file() else None

    def write_record(self, **content: Any) -> None:
        """Replace the record."""
        content = dict(name=self.name, labels=self.labels, fingerprint=self.fingerprint, **content)
        with atomic_write(self.folder / RECORD) as temporary:
            temporary.write_text(json.dumps(dict(content, commands=self.commands), indent=1), 'utf-8')

    def state(self) -> str:
        """Return ``'new'``, ``'done'``, ``'failed'``, ``'interrupted'``, or ``'stale'`` if it had other settings."""
        record = self.record()
        if record is None:
            return 'new'
        if record['fingerprint'] != self.fingerprint:
            return 'stale'
        lacks_output = record['status'] == 'done' and not all(path.is_file() for path in self.outputs)
        return 'interrupted' if lacks_output or record['status'] == 'running' else record['status']


class Study(NamedTuple):
    """Hold a study, expanded into jobs.

    Attributes:
        name: Title.
        path: Its file.
        work_dir: Where jobs work.
        seeds: Seeds of every training.
        jobs: In an order in which they can run.
        content: The file's content, e.g. ``tables`` for the report and ``slurm`` for the runner.
    """

    name: str
    path: Path
    work_dir: Path
    seeds: Tuple[int, ...]
    jobs: Tuple[Job, ...]
    content: Dict[str, Any]


def read_study(path: Union[str, Path], root: Path, work_dir: Union[str, Path, None] = None) -> Study:
    """Read a study and expand it into jobs.

    A study is a YAML file::

        name: Table 1, micro
        work_dir: work_dirs/studies/micro
        seeds: [0, 1, 2]
        processes: 2                                  # of each training; a row or a column may say otherwise
        backbones:
          swin-micro:
            pretrain:                                 # the rows of a table
              random: {random: configs/demo/pretrain.py, transfer: [detect, encode]}
              nfn: {config: configs/demo/pretrain.py}
              shuffled: {config: configs/demo/pretrain.py, options: {train_dataloader.dataset.shuffle_pairs: '{seed}'}}
              imagenet: {checkpoint: swin_small.pth, transfer: [detect, encode]}
              gabors: {baseline: configs/demo/encoding_low-level.py, transfer: [encode]}
            transfer:                                 # the columns
              detect: {config: configs/demo/mask-rcnn_micro_fpn_demo.py}
              encode: {config: configs/demo/encoding.py, train: false}
              adapt: {config: configs/demo/adapt_subject.py, load_from: true}
        tables:
          - title: Encoding
            rows: [random, nfn, shuffled]             # all by default
            references: [random, shuffled]            # rows that the others are compared with, none by default
            columns: {PCC: {task: encode, metric: encoding/pcc, scale: 100}}
            paper: {swin-micro: {nfn: {PCC: 57.4}}}   # what stands beside our metrics

    A row has one of ``config`` (a pretraining), ``random`` (the config whose backbone gets random weights),
    ``checkpoint`` (weights that there are) and ``baseline`` (the config of a model without weights). A baseline is
    tested in the columns of its ``transfer`` with its own config and options instead of theirs.

    ``options`` are those of ``--cfg-options``, and ``{seed}`` in them is the seed. ``transfer`` of a row names the
    columns that it is for, all by default; a row with a ``config`` is also tested by it (retrieval). A transfer starts
    from the exported backbone, or with ``load_from: true`` from the whole model, which only a row with a ``config``
    has. With ``dump: true`` its test also writes ``predictions.pkl``, for ``tools/experiments/compare.py``. Paths of
    configs and checkpoints start from the repository, or from the current folder; a checkpoint may also be a URL.
    Entries whose name starts with ``x-`` are for YAML's anchors. Studies that share a ``work_dir`` share their jobs of
    the same name.

    Args:
        path: The file.
        root: The repository, or the folder ``.mim`` of the installed package: where ``tools`` and ``configs`` are.
        work_dir: Instead of the file's own.

    Raises:
        FileNotFoundError: There is no such file, or a config or checkpoint that it names.
        ValueError: It is no study; the message names the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'STUDY: there is no file {str(path)!r}.')
    try:
        content = yaml.safe_load(path.read_text('utf-8'))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'STUDY: {path} is no YAML: {" ".join(str(error).split())}') from error
    _check(content, 'study', str(path))
    seeds = content['seeds']
    if not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f'STUDY: {path}, seeds must be different whole numbers, but is {seeds!r}.')
    work_dir = Path(work_dir or content['work_dir']).absolute()
    expansion = _Expansion(path, root, work_dir, content)
    jobs = tuple(job for name, node in content['backbones'].items() for job in expansion.backbone(name, node))
    _check_tables(content, f'{path}, tables')
    return Study(content['name'], path, work_dir, tuple(seeds), jobs, content)


def read_json(path: Path) -> Any:
    """Read a JSON file of a job; a damaged one is a ValueError that names it."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is damaged ({error}). Remove it, and run the study again.') from error


def config_text(path: Path) -> str:
    """Write out all that a config says with what it inherits, in an order that does not depend on how it is written."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # MMEngine's, at each config of a library
        content: Any = Config.fromfile(path, import_custom_modules=False).to_dict()
    return json.dumps(content, sort_keys=True, default=str)


class _Expansion:
    """Makes the jobs of one study."""

    def __init__(self, path: Path, root: Path, work_dir: Path, content: Mapping):
        self.path, self.root, self.work_dir = path, root, work_dir
        self.seeds: Sequence[int] = content['seeds']
        self.processes = content.get('processes', 1)
        self._settings: Dict[Path, str] = {}

    def backbone(self, name: str, node: Any) -> Iterator[Job]:
        """Make the jobs of all rows with one backbone."""
        where = f'{self.path}, backbones.{name}'
        _check(node, 'backbone', where)
        transfers = node.get('transfer', {})
        if 'pretrain' in transfers:
            raise ValueError(f"STUDY: {where}.transfer: 'pretrain' is the pretraining itself; choose another name.")
        for task, transfer in transfers.items():
            alone = isinstance(transfer, dict) and transfer.get('train') is False
            _check(transfer, 'test alone' if alone else 'transfer', f'{where}.transfer.{task}')
        for row, content in node['pretrain'].items():
            start = [key for key in ('config', 'random', 'checkpoint', 'baseline') if key in content]
            if len(start) != 1:
                raise ValueError(f'STUDY: {where}.pretrain.{row} needs one of config, random, checkpoint and baseline.')
            _check(content, start[0], f'{where}.pretrain.{row}')
            wanted = content.get('transfer', list(transfers))
            _check_names(wanted, transfers, f'{where}.pretrain.{row}.transfer')
            whole = [task for task in wanted if transfers[task].get('load_from')]
            if whole and start != ['config']:
                raise ValueError(
                    f'STUDY: {where}.pretrain.{row} has a backbone alone, and {whole[0]} loads a whole model '
                    '(load_from): name the other columns in its transfer.'
                )
            tasks = {'pretrain': content, **{task: transfers[task] for task in wanted}}
            if start == ['baseline']:
                trained = [task for task in wanted if transfers[task].get('train', True)]
                if trained:
                    raise ValueError(
                        f'STUDY: {where}.pretrain.{row} has no weights, and {trained[0]} is trained: name columns with '
                        'train: false in its transfer.'
                    )
                own = dict(config=content['baseline'], options=content.get('options', {}))
                tasks = {task: {**transfers[task], **own} for task in wanted}
            for seed in self.seeds:
                yield from self._row(name, row, seed, tasks)

    def _row(self, backbone: str, row: str, seed: int, tasks: Mapping[str, Mapping]) -> Iterator[Job]:
        """Make the pretraining of one row and seed, then its transfers."""
        prefix = f'{backbone}/{row}/seed{seed}'
        weights, needs, upstream = str(self.work_dir / prefix / 'pretrain/backbone_latest.pth'), (), []
        for task, node in tasks.items():
            if 'checkpoint' in node:
                weights = node['checkpoint'] if '://' in node['checkpoint'] else str(self._file(node['checkpoint']))
                continue
            pretrain, folder = task == 'pretrain', self.work_dir / prefix / task
            metrics, embeddings = folder / 'metrics.json', folder / EMBEDDINGS
            outputs = (Path(weights), metrics, embeddings) if pretrain else (metrics,)
            dumped = embeddings if pretrain else folder / 'predictions.pkl'
            dump = ('--dump', dumped) if pretrain or node.get('dump') else ()
            start = {} if pretrain else {'model.backbone.init_cfg.checkpoint': weights}
            if node.get('load_from'):
                start = dict(load_from=f'{{last_checkpoint:{self.work_dir / prefix / "pretrain"}}}')
            config, options = (
                self._file(node.get('config') or node['random']),
                _filled_in(node.get('options', {}), seed),
            )
            checkpoint, processes, commands = weights, 1, []
            if 'random' in node:
                flags = ('--random', config, weights, '--seed', seed, *_cfg_options(options))
                commands.append(self._python('tools/model_converters/export_backbone.py', *flags))
                outputs = outputs[:1]
            elif node.get('train', True):
                processes, checkpoint = node.get('processes', self.processes), f'{{last_checkpoint:{folder}}}'
                flags = ('--work-dir', str(folder), '--resume', 'auto')
                flags += _cfg_options({**start, **options, 'randomness.seed': seed})
                launcher = ('bash', str(self.root / 'tools/dist_train.sh'), str(config), str(processes))
                alone = self._python('tools/train.py', config)
                commands.append((*(launcher if processes > 1 else alone), *flags))
            if 'config' in node:
                flags = ('--work-dir', folder / 'test', '--out', metrics, *dump, *_cfg_options(options))
                tested = [config, checkpoint] if 'pretrain' in tasks else [config]  # a baseline has no weights
                commands.append(self._python('tools/test.py', *tested, *flags))
            settings = self._settings[config] = self._settings.get(config) or config_text(config)
            fingerprint = self._fingerprint(commands, settings, upstream)
            labels = dict(backbone=backbone, row=row, seed=str(seed), task=task)
            name = f'{prefix}/{task}'
            yield Job(name, folder, tuple(commands), needs, outputs, labels, processes, config, settings, fingerprint)
            if pretrain:
                needs, upstream = (name,), [fingerprint]

    def _python(self, script: str, *arguments: object) -> Tuple[str, ...]:
        return (sys.executable, str(self.root / script), *map(str, arguments))

    def _file(self, name: str) -> Path:
        """Find a config or checkpoint that the study names, from the repository or from the current folder."""
        for path in (self.root / name, Path(name)):
            if path.is_file():
                return path.absolute()
        raise FileNotFoundError(f'STUDY: {self.path} names {name!r}, which is neither in {self.root} nor here.')

    def _fingerprint(self, commands: Sequence[Sequence[str]], settings: str, upstream: Sequence[str]) -> str:
        """Hash all that the result of a job depends on; the study and the repository may move."""
        shown = [['python' if part == sys.executable else part for part in command] for command in commands]
        for number, place in enumerate((str(self.work_dir), str(self.root))):
            shown = [[part.replace(place, f'<{number}>') for part in command] for command in shown]
        return hashlib.sha256(json.dumps([shown, settings, upstream]).encode()).hexdigest()[:16]


def _filled_in(value: Any, seed: int) -> Any:
    """Put the seed into options."""
    if isinstance(value, dict):
        return {key: _filled_in(entry, seed) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled_in(entry, seed) for entry in value]
    return value.replace('{seed}', str(seed)) if isinstance(value, str) else value


def _cfg_options(options: Mapping) -> Tuple[str, ...]:
    """Make arguments of options; a ValueError for a value that --cfg-options would read as another."""
    for key, value in options.items():
        if isinstance(value, dict) or (isinstance(value, str) and re.search(r'[,\[\]()]', value)):
            raise ValueError(
                f'STUDY: options, {key}: --cfg-options cannot take {value!r}. Write the entries of a mapping one by '
                f'one ({key}.NAME: VALUE), lists in YAML, and texts without commas and brackets; or set it in a config.'
            )
    arguments = (f'{key}={value}'.replace(', ', ',') for key, value in options.items())
    return ('--cfg-options', *arguments) if options else ()


def _check(node: Any, part: str, where: str) -> None:
    """Raise a ValueError for a part of a file that lacks an entry, or has an unknown one or one of another type."""
    known = _PARTS[part]
    if not isinstance(node, dict):
        raise ValueError(f'STUDY: {where} must be a mapping with {", ".join(known)}, but is {node!r}.')
    for key, value in node.items():
        if key not in known and not str(key).startswith('x-'):
            raise ValueError(f'STUDY: {where} has an unknown entry {key!r}; it can have {", ".join(known)}.')
        if key in known and (not isinstance(value, known[key]) or (value is True and known[key] is int)):
            wanted = _TYPES.get(known[key], 'a number')
            raise ValueError(f'STUDY: {where}, {key} must be {wanted}, but is {value!r}.')
    for key in _REQUIRED.get(part, ()):
        if not node.get(key):
            raise ValueError(f'STUDY: {where} has no {key}.')


def _check_names(names: Sequence[str], known: Mapping, where: str) -> None:
    """Raise a ValueError for a name that nothing has."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'STUDY: {where} names {unknown[0]!r}; there are {", ".join(known)}.')


def _check_tables(content: Mapping, where: str) -> None:
    """Check tables before days of computing, not after them."""
    backbones = content['backbones'].values()
    rows = {row: None for node in backbones for row in node['pretrain']}
    tasks = {task: None for node in backbones for task in ('pretrain', *node.get('transfer', {}))}
    for number, table in enumerate(content.get('tables', ()), 1):
        place = f'{where}, number {number}'
        _check(table, 'table', place)
        _check_names(table.get('rows', ()), rows, f'{place}, rows')
        _check_names(table.get('references', ()), dict.fromkeys(table.get('rows', rows)), f'{place}, references')
        for name, column in table['columns'].items():
            _check(column, 'column', f'{place}, columns.{name}')
            _check_names([column['task']], tasks, f'{place}, columns.{name}')
