// keep-states
builtin.module attributes {onnx.dim_bounds = {past = array<i64: 0, 4, 0>}} {
  placement.segment @s0 on @cpu as "fp32" (%a: tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">> attributes {arg_names = ["a"], res_names = ["y"]} {
    %y = onnx.Relu(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    placement.yield %y : tensor<?x2xf32, #onnx.dims<"past", "">>
  }
  func.func @main(%a: tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "a", placement.state = "a"}) -> (tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "y"}, tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "a.new", placement.state = "a"}) {
    %y, %0 = placement.launch async @s0(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    %z, %1 = placement.launch async @s0(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    func.return %y, %z : tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<?x2xf32, #onnx.dims<"past", "">>
  }
}