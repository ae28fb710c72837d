# The benchmark's application for Rack servers; WebSockets would need a gem.

PIECES = 10

class Trickle
  def initialize(seconds)
    @seconds = seconds
  end

  def each
    PIECES.times do
      sleep @seconds / PIECES
      yield "."
    end
  end
end

run lambda { |env|
  seconds = env["QUERY_STRING"][/ms=(\d+)/, 1].to_i / 1000.0
  case env["PATH_INFO"]
  when "/trickle"
    next [200, { "Content-Length" => PIECES.to_s }, Trickle.new(seconds)]
  when "/upload"
    env["rack.input"].read
  when "/slow"
    sleep seconds
  end
  body = "made fast\n"
  [200, { "Content-Type" => "text/plain", "Content-Length" => body.bytesize.to_s }, [body]]
}
