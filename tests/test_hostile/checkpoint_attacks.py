"""Checkpoints made to hurt whoever loads them."""

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
from pickle_attacks import bombs, call, name, number, runs, text

KINDS = ('archive', 'legacy')
VALUES = np.arange(6, dtype='<f4').reshape(2, 3)  # of the only weight in them, backbone.a


def records(data):
    """Records of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def archive(contents, compression=zipfile.ZIP_STORED):
    """An archive of records, with the right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', compression) as made:
        for record, data in contents.items() if isinstance(contents, dict) else contents:
            made.writestr(record, data)
    return stream.getvalue()


def pickled(operations, first=b'\x80\2'):
    """A state dict with one more entry, beside it, that the operations make."""
    tensor = (
        name('torch._utils', '_rebuild_tensor_v2')
        + (b'((' + text('storage') + name('torch', 'FloatStorage') + text('0') + text('cpu') + b'K\x06tQ')
        + (b'K\0K\2K\3\x86K\3K\1\x86\x89' + name('collections', 'OrderedDict') + b')RtR')
    )
    state = b'}' + text('backbone.a') + tensor + b's'
    return first + b'}' + text('state_dict') + state + b's' + text('meta') + b'}' + text('x') + operations + b'ss.'


def with_pickle(data, kind, where='content'):
    """A file with a pickle in it; in files of the format before archives also in the parts around it."""
    values = VALUES.tobytes()
    if kind == 'archive':
        return archive({'a/data.pkl': data, 'a/byteorder': b'little', 'a/data/0': values, 'a/version': b'3\n'})
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))]
    content = data if where == 'content' else pickled(b'N')
    parts += [content.replace(b'tQ', b'NtQ'), pickle.dumps(['0'], 2)]  # here they say of what they are a view
    if where != 'content':
        parts[4 if where == 'keys' else 2] = b'\x80\2' + data + b'0' + parts[4 if where == 'keys' else 2][2:]
    return b''.join(parts) + struct.pack('<q', 6) + values


def rebuilt(size=b'K\2K\3\x86', stride=b'K\3K\1\x86', offset=b'K\0', count=b'K\x06', kind='FloatStorage', key='0'):
    """Push a tensor that is what is said here."""
    made = name('torch._utils', '_rebuild_tensor_v2') + b'((' + text('storage') + name('torch', kind) + text(key)
    made += text('cpu') + count + b'tQ' + offset + size + stride + b'\x89' + name('collections', 'OrderedDict')
    return made + b')RtR'


def tensor(**said):
    """A pickle whose only tensor is what is said."""
    return b'\x80\2}' + text('backbone.a') + rebuilt(**said) + b's.'


TENSORS = {
    'more values than data': dict(count=b'K\x07'),
    'data of a terabyte': dict(count=number(2**38)),
    'fewer values than data': dict(count=b'K\5'),
    'negative count': dict(count=number(-6)),
    'no count': dict(count=b'N'),
    'larger than its data': dict(size=b'K\2K\4\x86'),
    'much larger than its data': dict(size=number(2**40) + b'K\3\x86'),
    'a stride beyond its data': dict(stride=b'K\4K\1\x86'),
    'negative stride': dict(stride=number(-1) + b'K\1\x86'),
    'huge stride': dict(stride=number(2**63 - 1) + b'K\1\x86'),
    'huge stride of one': dict(size=b'K\1K\3\x86', stride=number(2**80) + b'K\1\x86'),
    'a terabyte of one value': dict(size=number(2**38) + b'K\3\x86', stride=b'K\0K\0\x86'),
    'a beginning beyond its data': dict(offset=b'K\1'),
    'negative beginning': dict(offset=number(-1)),
    'huge beginning': dict(offset=number(2**63 - 1)),
    'negative size': dict(size=number(-2) + b'K\3\x86'),
    'other dimensions in its stride': dict(stride=b'K\1\x85'),
    'a hundred dimensions': dict(size=b'(' + b'K\1' * 100 + b't', stride=b'(' + b'K\1' * 100 + b't'),
    'a size of texts': dict(size=text('2') + text('3') + b'\x86'),
    'a size of floats': dict(size=b'G@\0\0\0\0\0\0\0G@\x08\0\0\0\0\0\0\x86'),
    'size is no tuple': dict(size=b'N'),
    'data of another type': dict(kind='DoubleStorage'),
    'data of an unknown type': dict(kind='QInt8Storage'),
    'data that are not there': dict(key='7'),
    'data in another folder': dict(key='../../secret'),
    'the pickle as data': dict(key='../data.pkl'),
}


def changed(operations):
    """A pickle that does something to a tensor after it was made."""
    return tensor()[:-2] + operations + b's.'


def archives():
    """Archives that say something else than they are: name → bytes."""
    whole = dict(records(with_pickle(pickled(b'N'), 'archive')))
    evil = pickled(call('os', 'system', 'true'))
    good = archive(whole)
    central = good.index(b'PK\1\2')
    at = good.index(b'PK\1\2', good.index(b'a/data/0', central) - 60)
    lying = {
        'a size': (24, struct.pack('<I', 2**31)),
        'both sizes': (20, struct.pack('<II', 2**31, 2**31)),
        'a checksum': (16, b'\1\2\3\4'),
        'a place': (42, struct.pack('<I', 0)),
        'encrypted': (8, b'\1\0'),
        'a method': (10, b'\x63\0'),
        'deflate': (10, b'\x08\0'),
    }
    return {
        'two pickles': archive([*whole.items(), ('a/data.pkl', evil)]),
        'two pickles, one in capitals': archive([('a/DATA.PKL', evil), *whole.items()]),
        'two folders': archive([('b/data.pkl', evil), *whole.items()]),
        'something before it': b'PK\3\4' + evil + good,
        'one archive after another': archive({'a/data.pkl': evil}) + good,
        'compressed': archive(whole, zipfile.ZIP_DEFLATED),
        'a bomb': archive({**whole, 'a/data/0': bytes(1 << 22)}, zipfile.ZIP_DEFLATED),
        'a bomb as pickle': archive({**whole, 'a/data.pkl': b'\x80\2' + bytes(1 << 22)}, zipfile.ZIP_BZIP2),
        'no pickle': archive({key: value for key, value in whole.items() if 'pkl' not in key}),
        'nothing': archive({}),
        'folders': archive([('a/data.pkl/', b''), *whole.items()][:1]),
        'another byte order': archive({**whole, 'a/byteorder': b'big'}),
        'data that lack a byte': archive({**whole, 'a/data/0': whole['a/data/0'][:-1]}),
        'a longer file': archive({**whole, 'a/data/0': whole['a/data/0'] + b'\0\0\0\0'}),
        'a program': archive({**whole, 'a/constants.pkl': evil}),
        'a path upwards': archive([('../a/data.pkl', evil), *whole.items()]),
        **{
            f'lies about {what}': good[: at + place] + data + good[at + place + len(data) :]
            for what, (place, data) in lying.items()
        },
    }


def others():
    """What is no checkpoint: name → bytes."""
    tar = io.BytesIO()
    header = b'././@LongLink'.ljust(124, b'\0') + b'77777777777\0' + b'0' * 12
    with gzip.GzipFile(fileobj=tar, mode='wb') as stream:
        stream.write(header.ljust(156, b'\0') + b'L' + b'\0' * 100 + b'ustar  \0'.ljust(255, b'\0') + bytes(1 << 22))
    return {
        'a packed tar': tar.getvalue(),
        'nothing but zeros': bytes(1000),
        'the end of an archive': b'PK\5\6' + bytes(18),
        'a beginning of pickle': b'\x80\2',
        'json of many levels': b'[' * 100_000,
        'safetensors': struct.pack('<Q', 2**60) + b'{',
    }


def attacks(folder):
    """Name → bytes that must be refused."""
    bad = {what: with_pickle(pickled(made), 'archive') for what, made in bombs().items()}
    small = {what: made for what, made in bombs().items() if len(made) < 1 << 16}
    bad.update((f'legacy, {what}', with_pickle(pickled(made), 'legacy')) for what, made in small.items())
    bad.update(
        (f'{kind}, {what}', with_pickle(tensor(**said), kind)) for kind in KINDS for what, said in TENSORS.items()
    )
    for what, operations in CHANGES.items():
        bad.update((f'{kind}, {what}', with_pickle(changed(operations), kind)) for kind in KINDS)
    for where in ('keys', 'sizes'):
        for what, made in runs(folder / 'marker').items():
            bad[f'{where}, {what}'] = with_pickle(made, 'legacy', where)
    return {**bad, **archives(), **others()}


CHANGES = {
    'a tensor with entries': b'K\0G?\xf0\0\0\0\0\0\0s',
    'a tensor with another state': b'}' + text('data') + b'Nsb',
    'a tensor with another tensor in it': b'(' + rebuilt(size=b'K\2\x85', stride=b'K\1\x85') + b'N}\x89Ntb',
    'a tensor that is called': b')R',
    'a tensor as a list': b'K\1a',
}
