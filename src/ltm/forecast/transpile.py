"""Turn the restricted Python of `formulas` into JavaScript, so that the page computes with the very same arithmetic.

Reads: the source text of formula modules. Writes: nothing; `ltm.forecast.page` puts the script into the page.

The language: functions of positional parameters (numbers may be defaults), assignments to one name, arithmetic, single
comparisons (1 or 0), numbers, dictionaries with text keys, `p["key"]`, attributes of parameters (`c.n_layer`), calls of
the module's functions and of the NumPy names in `RUNTIME`, and one `return` at the end. Everything else is refused with
its place: a formula that JavaScript would compute differently (an `if` on an array, `x += y` that changes an array in
place) must not reach the page. Both branches of `where` are evaluated, as NumPy does; division by zero gives an
infinity or NaN in both languages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ltm.errors import LtmError

# NumPy's meaning in JavaScript: NaN counts as true in `where`.
RUNTIME = {
    "absolute": "Math.abs",
    "ceil": "Math.ceil",
    "exp": "Math.exp",
    "expm1": "Math.expm1",
    "floor": "Math.floor",
    "log": "Math.log",
    "log1p": "Math.log1p",
    "log2": "Math.log2",
    "log10": "Math.log10",
    "maximum": "Math.max",
    "minimum": "Math.min",
    "sqrt": "Math.sqrt",
    "tanh": "Math.tanh",
    "where": "(test, yes, no) => (test !== 0 ? yes : no)",
}
_ARITY = {"maximum": 2, "minimum": 2, "where": 3}
# Math.pow(1, NaN) is NaN in JavaScript and 1 in C and NumPy; so with 1 and -1 to an infinite power.
_ONE = "base === 1 || (base === -1 && Math.abs(exponent) === Infinity)"
_POWER = f"(base, exponent) => ({_ONE} ? 1 : Math.pow(base, exponent))"
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!==",
}  # fmt: skip
# Words that Python allows as names and JavaScript does not, and the one name that the runtime takes.
_RESERVED = frozenset({
    "arguments", "await", "case", "catch", "const", "debugger", "default", "delete", "do", "enum", "eval", "export",
    "extends", "false", "function", "implements", "instanceof", "interface", "let", "new", "null", "package",
    "private", "protected", "public", "static", "super", "switch", "this", "throw", "true", "typeof", "undefined",
    "var", "void", "np", "Math", "Number", "Infinity", "NaN",
})  # fmt: skip
_PLAIN_IMPORTS = frozenset({"__future__", "typing", "collections.abc"})


class FormulaError(LtmError):
    """A formula uses Python that has no exact counterpart on the page."""


@dataclass(frozen=True)
class Source:
    """The text of one formula module."""

    name: str  # what messages call it, such as formulas.py
    text: str


@dataclass
class Script:
    """Formulas as JavaScript."""

    text: str = ""
    functions: dict[str, list[str]] = field(default_factory=dict)  # name -> parameters
    reads: dict[str, set[str]] = field(default_factory=dict)  # parameter -> its attributes that some formula reads


@dataclass
class _Module:
    source: Source
    numpy: dict[str, str]  # local name -> NumPy's name
    known: dict[str, ast.FunctionDef]  # every function that may be called
    constants: set[str]
    reads: dict[str, set[str]]

    def refuse(self, node: ast.AST, what: str, hint: str) -> FormulaError:
        return FormulaError(f"{self.source.name}:{getattr(node, 'lineno', 1)}: {what}", hint)


def transpile(sources: Iterable[Source]) -> Script:
    """Return one script of function declarations for modules that may call each other's functions.

    The script needs the runtime of `runtime_script` beside it.

    Raises:
        FormulaError: a module leaves the restricted language; the message begins with file:line.
    """
    script = Script()
    known: dict[str, ast.FunctionDef] = {}
    pieces: list[str] = []
    for source in sources:
        try:
            tree = ast.parse(source.text, source.name)
        except SyntaxError as error:
            raise FormulaError(f"{source.name}:{error.lineno}: not Python: {error.msg}", "mend the file") from error
        module = _Module(source, {}, known, set(), script.reads)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        for node in functions:
            if node.name in known or node.name in RUNTIME or node.name in _RESERVED:
                raise module.refuse(node, f"the name `{node.name}` is taken", "rename the function")
            known[node.name] = node
        pieces += [_top_level(module, node) for node in tree.body if node not in functions]
        for node in functions:
            pieces.append(_function(module, node))
            script.functions[node.name] = [a.arg for a in node.args.args]
    script.text = "\n".join(piece for piece in pieces if piece)
    return script


def runtime_script() -> str:
    """Return the JavaScript object `np` that transpiled formulas call."""
    entries = "".join(f"  {name}: {code},\n" for name, code in {**RUNTIME, "pow": _POWER}.items())
    return f"const np = {{\n{entries}}};"


def _top_level(module: _Module, node: ast.stmt) -> str:
    """Return what stands outside functions: numbers by name. Imports and type aliases leave nothing behind."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return ""
    if isinstance(node, ast.ImportFrom):
        _import(module, node)
        return ""
    target, value = _assigned(node)
    if target is not None and isinstance(value, (ast.Name, ast.Subscript)):
        return ""  # a type alias; formulas that use it as a value are refused as an unknown name
    if target is not None and value is not None:
        code = _expression(module, value, set())
        module.constants.add(target.id)
        return f"const {_name(target.id)} = {code};"
    raise module.refuse(node, f"{_kind(node)} outside a function", "only imports, numbers by name and functions")


def _import(module: _Module, node: ast.ImportFrom) -> None:
    origin = node.module or ""
    if origin in _PLAIN_IMPORTS:
        return
    for alias in node.names:
        if origin == "numpy" and alias.name in RUNTIME:
            module.numpy[alias.asname or alias.name] = alias.name
        elif origin == "numpy":
            raise module.refuse(node, f"numpy.{alias.name} has no counterpart", f"known: {', '.join(RUNTIME)}")
        elif not origin.startswith("ltm.forecast.") or alias.asname:
            raise module.refuse(node, f"an import from {origin}", "import from numpy, typing or another formula module")
        # Names of other formula modules are found among the known functions when they are used.


def _function(module: _Module, node: ast.FunctionDef) -> str:
    arguments = node.args
    if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg or node.decorator_list:
        what = f"`{node.name}` has decorators or parameters of a special kind"
        raise module.refuse(node, what, "plain parameters only")
    scope = {argument.arg for argument in arguments.args}
    plain = len(arguments.args) - len(arguments.defaults)
    parameters = [_name(argument.arg) for argument in arguments.args]
    for place, default in enumerate(arguments.defaults, start=plain):
        parameters[place] += f" = {_expression(module, default, set())}"
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not body or not isinstance(body[-1], ast.Return):
        raise module.refuse(node, f"`{node.name}` does not end with a return", "end it with one return")
    lines = [_statement(module, statement, scope, last=statement is body[-1]) for statement in body]
    return f"function {_name(node.name)}({', '.join(parameters)}) {{\n" + "".join(f"  {line}\n" for line in lines) + "}"


def _statement(module: _Module, node: ast.stmt, scope: set[str], last: bool) -> str:
    if isinstance(node, ast.Return) and last and node.value is not None:
        return f"return {_expression(module, node.value, scope)};"
    target, value = _assigned(node)
    if target is None or value is None:
        hint = "write assignments and one return; where(...) in place of if; x = x + y in place of x += y"
        raise module.refuse(node, f"{_kind(node)} is outside the language of formulas", hint)
    code = _expression(module, value, scope)
    declare = "" if target.id in scope else "let "
    scope.add(target.id)
    return f"{declare}{_name(target.id)} = {code};"


def _assigned(node: ast.stmt) -> tuple[ast.Name | None, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0], node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target, node.value
    return None, None


def _expression(module: _Module, node: ast.expr, scope: set[str]) -> str:
    write = _WRITERS.get(type(node))
    if write is None:
        hint = "arithmetic, comparisons, calls, dictionaries, p['key'] and where(...) only"
        raise module.refuse(node, f"{_kind(node)} is outside the language of formulas", hint)
    return write(module, node, scope)


def _constant(module: _Module, node: ast.Constant, _scope: set[str]) -> str:
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        raise module.refuse(node, f"the constant {node.value!r}", "numbers only; 1.0 and 0.0 for true and false")
    if abs(node.value) == float("inf"):
        return "Infinity"
    return repr(float(node.value)).removesuffix(".0")


def _read(module: _Module, node: ast.Name, scope: set[str]) -> str:
    if node.id not in scope and node.id not in module.constants:
        raise module.refuse(node, f"the name `{node.id}` is not known here", "assign it first; call functions")
    return _name(node.id)


def _attribute(module: _Module, node: ast.Attribute, scope: set[str]) -> str:
    if not isinstance(node.value, ast.Name) or node.value.id not in scope:
        raise module.refuse(node, "an attribute of something that is no parameter", "write c.field, d.field or k.name")
    module.reads.setdefault(node.value.id, set()).add(node.attr)
    return f"{_name(node.value.id)}.{node.attr}"


def _binary(module: _Module, node: ast.BinOp, scope: set[str]) -> str:
    left, right = _expression(module, node.left, scope), _expression(module, node.right, scope)
    if isinstance(node.op, ast.Pow):
        return f"np.pow({left}, {right})"
    if isinstance(node.op, (ast.Add, ast.Sub)) and _truth(node.left) and _truth(node.right):
        hint = "NumPy's true + true is true, not 2: write where(a < b, 1.0, 0.0) + where(...)"
        raise module.refuse(node, "two comparisons added", hint)
    if type(node.op) not in _ARITHMETIC:
        raise module.refuse(node, f"the operator {_kind(node.op)}", "+ - * / and ** only; floor(a / b), not a // b")
    return f"({left} {_ARITHMETIC[type(node.op)]} {right})"


def _truth(node: ast.expr) -> bool:
    """Say whether NumPy would make truth values of an expression: comparisons and products of them."""
    both = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and _truth(node.left) and _truth(node.right)
    return isinstance(node, ast.Compare) or both


def _unary(module: _Module, node: ast.UnaryOp, scope: set[str]) -> str:
    if not isinstance(node.op, (ast.USub, ast.UAdd)):
        raise module.refuse(node, f"the operator {_kind(node.op)}", "write 1.0 - x in place of not x")
    inner = _expression(module, node.operand, scope)
    return f"(-{inner})" if isinstance(node.op, ast.USub) else inner


def _compare(module: _Module, node: ast.Compare, scope: set[str]) -> str:
    if len(node.ops) != 1:
        raise module.refuse(node, "a chain of comparisons", "multiply two comparisons: (a < b) * (b < c)")
    if type(node.ops[0]) not in _COMPARISONS:
        raise module.refuse(node, f"the comparison {_kind(node.ops[0])}", "< <= > >= == and != only")
    left, right = _expression(module, node.left, scope), _expression(module, node.comparators[0], scope)
    return f"Number({left} {_COMPARISONS[type(node.ops[0])]} {right})"


def _call(module: _Module, node: ast.Call, scope: set[str]) -> str:
    if not isinstance(node.func, ast.Name):
        raise module.refuse(node, "a call of a method", "call functions of the module or imported NumPy names")
    name = node.func.id
    if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
        raise module.refuse(node, f"`{name}` is called with keywords or stars", "give arguments by place")
    given = [_expression(module, a, scope) for a in node.args]
    if name in scope:
        raise module.refuse(node, f"`{name}` is a value here, not a function", "rename the value")
    if name in module.numpy:
        numpy_name = module.numpy[name]
        _count(module, node, name, _ARITY.get(numpy_name, 1), _ARITY.get(numpy_name, 1))
        return f"np.{numpy_name}({', '.join(given)})"
    called = module.known.get(name)
    if called is None:
        raise module.refuse(node, f"the function `{name}` is not known", "define it or import it from numpy")
    most = len(called.args.args)
    _count(module, node, name, most - len(called.args.defaults), most)
    return f"{_name(name)}({', '.join(given)})"


def _count(module: _Module, node: ast.Call, name: str, least: int, most: int) -> None:
    if not least <= len(node.args) <= most:
        raise module.refuse(node, f"`{name}` takes {least} to {most} values, not {len(node.args)}", "give them all")


def _dict(module: _Module, node: ast.Dict, scope: set[str]) -> str:
    parts = []
    for key, value in zip(node.keys, node.values, strict=True):
        parts.append(f"{_key(module, node, key)}: {_expression(module, value, scope)}")
    return "{" + ", ".join(parts) + "}"


def _subscript(module: _Module, node: ast.Subscript, scope: set[str]) -> str:
    return f"{_expression(module, node.value, scope)}[{_key(module, node, node.slice)}]"


def _key(module: _Module, node: ast.expr, key: ast.expr | None) -> str:
    if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
        raise module.refuse(key or node, "a key that is not a text", 'write p["key"]')
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key.value):
        raise module.refuse(key, f"the key {key.value!r}", "letters, digits and _ only")
    return f'"{key.value}"'


def _name(name: str) -> str:
    return f"{name}_" if name in _RESERVED else name


def _kind(node: ast.AST) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()
    return f"`{words}`"


_Writer = Callable[[_Module, "ast.expr", "set[str]"], str]
_WRITERS: dict[type[ast.expr], _Writer] = {
    ast.Constant: _constant,  # type: ignore[dict-item]
    ast.Name: _read,  # type: ignore[dict-item]
    ast.Attribute: _attribute,  # type: ignore[dict-item]
    ast.BinOp: _binary,  # type: ignore[dict-item]
    ast.UnaryOp: _unary,  # type: ignore[dict-item]
    ast.Compare: _compare,  # type: ignore[dict-item]
    ast.Call: _call,  # type: ignore[dict-item]
    ast.Dict: _dict,  # type: ignore[dict-item]
    ast.Subscript: _subscript,  # type: ignore[dict-item]
}
