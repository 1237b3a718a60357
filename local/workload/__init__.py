"""What the demo's environment does all day: DAGs, and the variables, connections, pools and notes of its people."""
