"""What the report and the token view share: the style sheet, the security policy, and text as inert HTML."""
