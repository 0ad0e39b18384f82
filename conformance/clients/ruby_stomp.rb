# The Ruby gem stomp: STOMP 1.0, 1.1 and 1.2 over TCP. One end of the line protocol, see "The line protocol" in
# ../README.md.

require 'base64'
require 'json'
require 'stomp'

OUT = $stdout.dup
OUT.sync = true
$stdout.reopen($stderr) # libraries like to talk; stdout is ours
TURN = Mutex.new

def say(line)
  TURN.synchronize { OUT.puts(JSON.generate(line)) }
end

def pack(bytes)
  text = bytes.dup.force_encoding('UTF-8')
  text.valid_encoding? ? text : { '$bytes' => Base64.strict_encode64(bytes) }
end

def unpack(body)
  body.is_a?(Hash) ? Base64.decode64(body['$bytes']) : body
end

# A session with a broker.
class Session
  attr_reader :details

  def initialize(name, params)
    @name = name
    @version = params['version']
    @keys, @messages, @receipts = {}, {}, {}
    @numbers = 0
    beats = (params['heartbeat'] || [0, 0]).join(',')
    headers = { 'accept-version' => @version, 'host' => params['vhost'] || params['host'], 'heart-beat' => beats }
    host = { host: params['host'], port: params['port'], login: params['login'] || '',
             passcode: params['passcode'] || '' }
    @stomp = Stomp::Connection.new(hosts: [host], reliable: false, connect_headers: headers,
                                   start_timeout: 5, hbser: true)
    frame = @stomp.connection_frame
    raise "#{frame.command}: #{frame.headers['message']}" unless frame.command == 'CONNECTED'

    @details = frame.headers
    @reading = Thread.new { read }
  end

  def read
    while (message = @stomp.receive)
      take(message)
    end
    failed('the stream ended')
  rescue StandardError => e
    failed(e.message)
  end

  def take(message)
    headers = message.headers.transform_keys(&:to_s)
    case message.command
    when 'MESSAGE'
      handle = @messages.size + 1
      @messages[handle] = message
      key = @version == '1.0' ? @keys[headers['destination']] : headers['subscription']
      say(event: 'message', session: @name, key: key || headers['destination'], handle: handle,
          headers: headers, body: pack(message.body))
    when 'RECEIPT' then @receipts.delete(headers['receipt-id'])&.push(true)
    when 'ERROR'
      @trouble = "ERROR: #{headers['message']}"
      say(event: 'error', session: @name, headers: headers, body: pack(message.body))
      @receipts.each_value { |waiting| waiting.push(false) }
    end
  end

  def failed(why)
    return if @closed

    @closed = true
    @trouble ||= why
    @receipts.each_value { |waiting| waiting.push(false) }
    say(event: 'closed', session: @name, reason: why)
  end

  def asking(wanted, headers)
    headers = (headers || {}).dup
    return yield(headers) && nil unless wanted

    number = "receipt-#{@numbers += 1}"
    waiting = @receipts[number] = Queue.new
    yield(headers.merge('receipt' => number))
    raise @trouble unless waiting.pop

    { receipt: number }
  end

  def subscribe(key:, destination:, headers: nil, receipt: false)
    @keys[destination] = key
    asking(receipt, headers) do |all|
      all = all.merge('id' => key) unless @version == '1.0'
      @stomp.subscribe(destination, all)
      true
    end
  end

  def unsubscribe(key:, headers: nil)
    return @stomp.unsubscribe(@keys.key(key), headers || {}) if @version == '1.0'

    @stomp.unsubscribe(@keys.key(key) || '', (headers || {}).merge('id' => key))
    nil
  end

  def send_(destination:, body:, headers: nil, receipt: false)
    asking(receipt, headers) do |all|
      @stomp.publish(destination, unpack(body), all)
      true
    end
  end

  def settle(verb, handle, headers)
    message = @messages[handle]
    all = headers || {}
    case @version
    when '1.2' then @stomp.public_send(verb, message.headers['ack'], all)
    when '1.1'
      all = all.merge('subscription' => message.headers['subscription'])
      @stomp.public_send(verb, message.headers['message-id'], all)
    else @stomp.public_send(verb, message.headers['message-id'], all)
    end
    nil
  end

  def ack(handle:, headers: nil) = settle(:ack, handle, headers)
  def nack(handle:, headers: nil) = settle(:nack, handle, headers)
  def begin(transaction:) = @stomp.begin(transaction) && nil
  def commit(transaction:) = @stomp.commit(transaction) && nil
  def abort(transaction:) = @stomp.abort(transaction) && nil

  def close
    asking(true, {}) do |all|
      # Closing is ours: the library would close before its receipt came.
      @stomp.send(:transmit, 'DISCONNECT', all)
      true
    end
    failed('disconnected')
    @reading.kill
    @stomp.instance_variable_get(:@socket).close
    nil
  rescue IOError
    nil # the broker closed first, and the library with it
  end

  def drop
    @stomp.instance_variable_get(:@socket).shutdown(Socket::SHUT_RDWR)
    nil
  end
end

sessions = {}
ABOUT = { library: 'stomp (Ruby)', version: Stomp::Version::STRING }.freeze

def answer(request, sessions)
  name, op = request.delete('session'), request.delete('op')
  return ABOUT if op == 'about'
  return (sessions[name] = Session.new(name, request)).details if op == 'connect'

  op = 'send_' if op == 'send'
  sessions.fetch(name).public_send(op, **request.transform_keys(&:to_sym))
end

while (line = $stdin.gets)
  request = JSON.parse(line)
  Thread.new(request) do |asked|
    number = asked.delete('id')
    begin
      say(id: number, ok: answer(asked, sessions))
    rescue StandardError => e
      warn e.full_message
      say(id: number, error: { message: "#{e.class}: #{e.message}" })
    end
  end
end
exit!(0)
