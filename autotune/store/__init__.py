"""What was measured, remembered: the only room that speaks SQL. Rows stay here, values leave."""
