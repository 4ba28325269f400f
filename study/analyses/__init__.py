"""The analyses of a study, one folder each: options, step, tables, figures, claims."""
