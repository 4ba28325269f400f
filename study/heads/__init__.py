"""Head effects of a task: sweeps that resume, tables, figures, and every definition for one head."""
