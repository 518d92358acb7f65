"""What a segment can be lowered to: capabilities, costs and emitters, one folder a framework."""
