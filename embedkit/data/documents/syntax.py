"""The languages whose source code is cut by its syntax, and what the nodes of their trees are here."""

from __future__ import annotations

LANGUAGES = {
    ".py": "python",
    ".pyi": "python",
    ".js": "javascript",
    ".jsx": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "tsx",
    ".go": "go",
    ".rs": "rust",
    ".java": "java",
    ".c": "c",
    ".h": "cpp",  # whose grammar reads C
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hh": "cpp",
    ".hpp": "cpp",
    ".hxx": "cpp",
    ".sh": "bash",
    ".bash": "bash",
}
# Nodes of all languages, by what they are here.
FUNCTIONS = frozenset(
    """function_definition function_declaration generator_function_declaration function_item method_definition method_declaration
    constructor_declaration compact_constructor_declaration macro_definition""".split()  # noqa: SIM905  # names to read
)
CLASSES = {
    "class_definition": "class",
    "class_declaration": "class",
    "abstract_class_declaration": "class",
    "class_specifier": "class",
    "struct_specifier": "struct",
    "struct_item": "struct",
    "union_specifier": "union",
    "union_item": "union",
    "enum_specifier": "enum",
    "enum_declaration": "enum",
    "enum_item": "enum",
    "interface_declaration": "interface",
    "annotation_type_declaration": "@interface",
    "record_declaration": "record",
    "trait_item": "trait",
    "impl_item": "impl",
    "type_declaration": "type",
    "type_alias_declaration": "type",
    "namespace_definition": "namespace",
    "internal_module": "namespace",
    "mod_item": "mod",
}
NAMESPACES = ("namespace", "mod")
# What stands around a definition as a part of it, and what only groups definitions.
WRAPPERS = ("decorated_definition", "export_statement", "template_declaration", "expression_statement")
GROUPS = frozenset(
    """preproc_ifdef preproc_if preproc_else preproc_elif linkage_specification declaration_list enum_body_declarations
    if_statement else_clause elif_clause try_statement except_clause block""".split()  # noqa: SIM905
)
VARIABLES = ("lexical_declaration", "variable_declaration")
FUNCTION_VALUES = ("arrow_function", "function_expression", "generator_function", "function")
BEFORE = ("comment", "line_comment", "block_comment", "attribute_item", "decorator")
