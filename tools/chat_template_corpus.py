#!/usr/bin/env python3
"""Chat templates rendered by orrery and by Hugging Face transformers, compared text for text.

    tools/chat_template_corpus.py FOLDER [--orrery build/release/bin/orrery] [--show]

Renders every *.jinja below FOLDER over a set of conversations (with and without system, several turns, tools, tool
calls and their results, reasoning, lists of parts, empty and missing contents, variables, with and without the
generation prompt) with transformers' own Jinja environment and with `orrery generate --chat --print-prompt`, and
prints how many are the same, refused by orrery by name, and different. Where transformers raises, orrery must refuse
too. Needs an interpreter with transformers and jinja2 (`pip install transformers jinja2`); not part of ctest.
Exit code 1 when anything is different.
"""
import argparse
import collections
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

from transformers.utils import chat_template_utils

TOKENS = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}
WRAPPER = 'this chat template is not supported: '
TODAY = datetime.datetime.now().strftime('%Y-%m-%d')

WEATHER = {'type': 'function', 'function': {
    'name': 'get_weather', 'description': 'The weather at a place: "now", <b>or</b> & later.',
    'parameters': {'type': 'object', 'properties': {
        'city': {'type': 'string', 'description': "The city's name, e.g. Zürich"},
        'days': {'type': 'integer', 'enum': [1, 2, 3], 'default': 1},
        'options': {'type': 'object', 'properties': {'unit': {'type': ['string', 'null']}}, 'required': []},
        'tags': {'type': 'array', 'items': {'type': 'string'}}}, 'required': ['city']}}}
CLOCK = {'type': 'function', 'function': {'name': 'clock', 'description': 'The time.',
                                          'parameters': {'type': 'object', 'properties': {}}}}
RETURNS = {'type': 'function', 'function': {
    'name': 'add', 'description': 'Adds.', 'parameters': {'type': 'object', 'properties': {
        'a': {'type': 'number', 'description': 'first'}, 'b': {'type': 'number', 'description': 'second'}},
        'required': ['a', 'b']}, 'return': {'type': 'number', 'description': 'the sum'}}}


def user(text):
    return {'role': 'user', 'content': text}


def assistant(text, **more):
    return {'role': 'assistant', 'content': text, **more}


def system(text):
    return {'role': 'system', 'content': text}


def call(name, arguments, identity='call00001'):
    return {'type': 'function', 'id': identity, 'function': {'name': name, 'arguments': arguments}}


def conversations():
    hi = [user('Hi')]
    turns = [system('You are brief.'), user(' What is 2+2?\n'), assistant('4'), user('你好 <b>&</b> "quoted"\t\'x\''),
             assistant(' Fine. \n\n'), user('And 3+3?')]
    thought = [user('1+1?'), assistant('<think>\nadd them\n</think>\n\n2'), user('2+2?'),
               assistant('<think>more</think>4'), user('x')]
    reasoned = [user('1+1?'), assistant('2', reasoning_content='add them'), user('2+2?'),
                assistant('4', reasoning_content='\nagain\n')]
    parts = [{'role': 'user', 'content': [{'type': 'text', 'text': 'Look: '}, {'type': 'text', 'text': 'here.'}]}]
    calls = [system('Use tools.'), user('Weather in Zürich?'),
             assistant('', tool_calls=[call('get_weather', {'city': 'Zürich', 'days': 2, 'options': {'unit': None},
                                                            'tags': ['a', 'b'], 'x': 1.5, 'y': True})]),
             {'role': 'tool', 'name': 'get_weather', 'tool_call_id': 'call00001', 'content': '{"t": 21.5}'},
             assistant('It is 21.5.'), user('Thanks')]
    text_calls = [user('Weather?'), assistant('Looking.', tool_calls=[call('get_weather', '{"city": "Bern"}')]),
                  {'role': 'tool', 'tool_call_id': 'call00001', 'name': 'get_weather', 'content': 'sunny'}]
    two_calls = [user('Both?'),
                 {'role': 'assistant', 'content': None,
                  'tool_calls': [call('get_weather', {'city': 'A'}, 'aaaaaaaa1'), call('clock', {}, 'bbbbbbbb2')]},
                 {'role': 'tool', 'tool_call_id': 'aaaaaaaa1', 'name': 'get_weather', 'content': 'rain'},
                 {'role': 'tool', 'tool_call_id': 'bbbbbbbb2', 'name': 'clock', 'content': {'h': 12}}]
    tool_last = two_calls[:1] + [assistant(
        '', tool_calls=two_calls[1]['tool_calls'])] + [{
            'role': 'tool', 'tool_call_id': 'aaaaaaaa1', 'name': 'get_weather', 'content': 'rain'
        }, {'role': 'tool', 'tool_call_id': 'bbbbbbbb2', 'name': 'clock', 'content': '12'},
                                                       user('So?')]
    bare_call = [user('Now?'), {'role': 'assistant', 'tool_calls': [call('clock', {})]},
                 {'role': 'tool', 'content': '12', 'tool_call_id': 'call00001'}, assistant('Noon.')]
    reasoned_call = [user('Now?'), assistant('', reasoning_content='use the clock', tool_calls=[call('clock', {})]),
                     {'role': 'tool', 'content': '12', 'tool_call_id': 'call00001', 'name': 'clock'}]
    base = {
        'hi': (hi, None), 'system': ([system('Be kind.')] + hi, None), 'empty system': ([system('')] + hi, None),
        'turns': (turns, None), 'thought': (thought, None), 'reasoned': (reasoned, None), 'parts': (parts, None),
        'empty user': ([user('')], None), 'assistant last': ([user('a'), assistant('b')], None),
        'empty assistant': ([user('a'), assistant(''), user('b')], None),
        'system only': ([system('Only this.')], None), 'system late': ([user('a'), system('later'), user('b')], None),
        'two users': ([user('a'), user('b')], None), 'assistant first': ([assistant('a'), user('b')], None),
        'unknown role': ([user('a'), {'role': 'robot', 'content': 'b'}], None),
        'developer': ([{'role': 'developer', 'content': 'Rules.'}, user('a')], None),
        'named': ([{'role': 'user', 'name': 'Ann', 'content': 'a'}, assistant('b', name='Bot')], None),
        'null content': ([user('a'), {'role': 'assistant', 'content': None}, user('b')], None),
        'tools': (hi, [WEATHER, CLOCK]), 'tools and system': ([system('Use tools.')] + hi, [WEATHER]),
        'no tools': (hi, []), 'bare tool': (hi, [WEATHER['function']]), 'returns': (hi, [RETURNS]),
        'calls': (calls, [WEATHER]), 'calls without tools': (calls, None), 'text calls': (text_calls, [WEATHER]),
        'two calls': (two_calls, [WEATHER, CLOCK]), 'tool last': (tool_last, [WEATHER, CLOCK]),
        'bare call': (bare_call, [CLOCK]), 'reasoned call': (reasoned_call, [CLOCK]),
        'long': ([system('S')] + [m for i in range(12) for m in (user(f'q{i}'), assistant(f'a{i}\n'))], None),
        'parts with system': ([{'role': 'system', 'content': [{'type': 'text', 'text': 'S'}]}] + parts +
                              [{'role': 'assistant', 'content': [{'type': 'text', 'text': 'seen'}]}] + hi, None),
        'spaces': ([system('  s  '), user('\n u \u00a0\n'), assistant('\u3000a\u2003')], None),
    }
    for name, (messages, tools) in base.items():
        for generation in (True, False):
            variables = [{}]
            if name in ('hi', 'system', 'turns', 'thought', 'reasoned', 'calls', 'tools'):
                variables += [{'enable_thinking': False}, {'enable_thinking': True}]
            if name in ('hi', 'tools', 'calls'):
                variables += [{'thinking': True, 'reasoning_effort': 'high', 'date_string': '01 Feb 2025',
                               'tools_in_user_message': False, 'builtin_tools': ['code_interpreter'],
                               'custom_tools': None, 'xml_tools': [CLOCK], 'python_tools': None,
                               'keep_past_thinking': True, 'add_default_system_prompt': False}]
            for chosen in variables:
                yield (f'{name}, generation prompt {generation}, {chosen}',
                       {'messages': messages, 'tools': tools, 'add_generation_prompt': generation,
                        'chat_template_kwargs': chosen})


def expected(template, request):
    """The text, or None where transformers raises."""
    normalize = getattr(chat_template_utils, '_normalize_chat_messages', lambda messages: messages)
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [normalize(request['messages'])], tools=request['tools'], chat_template=template,
            add_generation_prompt=request['add_generation_prompt'],
            **{**TOKENS, **request['chat_template_kwargs']})
        return rendered[0], None
    except Exception as error:  # whatever a template or Jinja raises
        return None, f'{type(error).__name__}: {error}'


def write_model(folder, template):
    """A tokenizer of bytes with the template."""
    def alphabet():
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        table = {byte: chr(byte) for byte in shown}
        for i, byte in enumerate(b for b in range(256) if b not in table):
            table[byte] = chr(256 + i)
        return [table[byte] for byte in range(256)]
    vocab = {token: i for i, token in enumerate(alphabet() + list(TOKENS.values()))}
    added = [{'id': vocab[t], 'content': t, 'single_word': False, 'lstrip': False, 'rstrip': False,
              'normalized': False, 'special': True} for t in TOKENS.values()]
    (folder / 'tokenizer.json').write_text(json.dumps({
        'version': '1.0', 'added_tokens': added, 'normalizer': None,
        'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True},
        'post_processor': None, 'decoder': {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True,
                                            'use_regex': True},
        'model': {'type': 'BPE', 'vocab': vocab, 'merges': []}}))
    (folder / 'tokenizer_config.json').write_text(
        json.dumps({'tokenizer_class': 'PreTrainedTokenizerFast', **TOKENS}))
    (folder / 'chat_template.jinja').write_text(template, newline='')


def rendered_by_orrery(orrery, folder, requests):
    """A dict with prompt or error for each request."""
    lines = folder / 'conversations.jsonl'
    lines.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in requests))
    run = subprocess.run([
        orrery, 'generate', '--model', folder, '--chat', '--messages', lines, '--print-prompt',
        '--json', '--template-arg', f'strftime_now="{TODAY}"'
    ], capture_output=True, text=True, encoding='utf-8', errors='replace', timeout=600)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    if len(rows) != len(requests):  # the template itself was refused, or the process died
        error = run.stderr.strip().splitlines()[-1:] or [f'exit code {run.returncode}']
        rows = [{'error': error[0]}] * len(requests)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--orrery', default='build/release/bin/orrery')
    parser.add_argument('--show', action='store_true',
                        help='print the first difference of each template')
    options = parser.parse_args()
    cases = list(conversations())
    requests = [request for _, request in cases]
    counts, reasons = collections.Counter(), collections.Counter()
    templates = sorted(options.folder.rglob('*.jinja'))
    for path in templates:
        template = path.read_bytes().decode('utf-8')
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_model(folder, template)
            rows = rendered_by_orrery(options.orrery, folder, requests)
        mine = collections.Counter()
        first = None
        for (label, request), row in zip(cases, rows):
            text, raised = expected(template, request)
            error = row.get('error')
            if text is None and error is not None:
                verdict = 'both refuse'
            elif text is not None and error is None and row['prompt'] == text:
                verdict = 'same'
            elif text is not None and error is not None and 'not supported' in error.replace(
                    WRAPPER, ''):
                verdict = 'refused by name'
                reasons[error.split('chat_template.jinja: ',
                                    1)[-1].replace(WRAPPER, '').split(' (it begins')[0]] += 1
            else:
                verdict = 'different'
                first = first or (label, text if text is not None else raised, error or
                                  row['prompt'])
            mine[verdict] += 1
        counts.update(mine)
        counts['templates with a difference'] += 1 if mine['different'] else 0
        counts['templates wholly refused'] += 1 if mine['refused by name'] == len(cases) else 0
        if mine['different'] or mine['refused by name']:
            print(f'{path.name}: {dict(mine)}')
            if first and options.show:
                print(
                    f'  {first[0]}\n    transformers: {first[1]!r}\n    orrery:       {first[2]!r}')
    print(f'{len(templates)} templates, {len(cases)} conversations each: '
          f'{counts["same"]} the same, {counts["both refuse"]} refused by both, '
          f'{counts["refused by name"]} refused by name, {counts["different"]} different '
          f'({counts["templates with a difference"]} templates differ, {counts["templates wholly refused"]} are refused)')
    for reason, count in reasons.most_common(20):
        print(f'  {count} times: {reason}')
    return 1 if counts['different'] else 0


if __name__ == '__main__':
    sys.exit(main())
