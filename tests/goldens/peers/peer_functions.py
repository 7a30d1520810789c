"""Functions of other programs' files, to be run without the programs."""
import ast


def define(path, names, world):
    """Defines the file's functions and methods of these names in `world`, without their decorators."""
    body = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef) and node.name in names]
    assert sorted(node.name for node in body) == sorted(names), names
    for node in body:
        node.decorator_list = []
    exec(compile(ast.Module(body, type_ignores=[]), str(path), "exec"), world)
